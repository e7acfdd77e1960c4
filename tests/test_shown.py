"""Results print as small tables of one node's view, and say so where they are traced."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxqring as jq
from jaxqring._shown import Panel, as_html, as_text
from jaxqring.compress import CompressReport
from jaxqring.secure import SecureReport

LINKS, SYMBOLS = 4, 1000


def report_of(errors, **fields):
    zero = jnp.zeros(np.shape(errors)[:-1], jnp.uint32)
    known = {
        "errors_per_link": jnp.asarray(errors, jnp.uint32),
        "retransmissions_per_link": jnp.zeros(np.shape(errors), jnp.uint32),
        "undelivered": zero,
        "online_qubits": zero + jnp.float32(LINKS * SYMBOLS),
        "repeated_qubits": zero * jnp.float32(0),
        "saturated": zero,
        "non_finite": zero,
        "vanished": zero + jnp.uint32(2),
        "clipped_parameters": zero * jnp.float32(0),
        "replica_agreement": zero + jnp.float32(0.58),
        "num_links": LINKS,
        "symbols_per_link": SYMBOLS,
        "codewords_per_link": 0,
    }
    return jq.Report(**known | fields)


REPORT = report_of([10, 0, 20, 11])


def test_a_report_says_in_a_line_what_happened_and_then_link_by_link():
    assert (
        str(REPORT)
        == repr(REPORT)
        == (
            "Report: 4,000 symbols, 41 wrong (1.02%), most on link 2, replicas agree 0.58\n"
            "  online_qubits  4,000  over all links\n"
            "  vanished           2  values sent as zero\n"
            "Link by link\n"
            "  link  symbols  wrong\n"
            "     0    1,000     10\n"
            "     1    1,000      0\n"
            "     2    1,000     20\n"
            "     3    1,000     11"
        )
    )
    coded = report_of([0] * 4, codewords_per_link=12, replica_agreement=None)
    lines = str(coded).splitlines()
    assert lines[0] == "Report: 4,000 symbols, 0 wrong"
    assert lines[-1].split() == ["3", "1,000", "0", "12", "0"]


def test_many_links_are_not_shown_one_by_one():
    many = report_of([0] * 40, num_links=40)
    assert "Link by link" not in str(many)


def test_of_a_leading_axis_the_first_entry_is_shown():
    first = str(REPORT).splitlines()
    same = jax.tree.map(lambda leaf: jnp.stack([leaf] * 3), REPORT)
    lines = str(same).splitlines()
    assert lines == [first[0] + " (first of 3, all the same)", *first[1:]]
    steps = report_of([[10, 0, 20, 11], [1, 1, 1, 1]])
    assert str(steps).splitlines() == [first[0] + " (first of 2, others differ)", *first[1:]]
    pairs = jax.tree.map(lambda leaf: jnp.stack([leaf] * 5), steps)
    assert "(first of shape (5, 2), others differ)" in str(pairs)


def test_a_traced_result_says_so_and_known_ones_print_within_a_trace():
    seen = []

    @jax.jit
    def step(report):
        seen.extend([str(report), str(REPORT), report._repr_html_()])
        return report.symbol_errors

    step(REPORT)
    traced, known, page = seen
    assert traced.startswith("Report, traced\n")
    assert re.search(r"errors_per_link +uint32\[4\]", traced)
    assert known == str(REPORT)
    assert "uint32[4]" in page


@pytest.mark.parametrize("make", [lambda leaf: None, np.shape, lambda leaf: leaf[..., :0]])
def test_what_holds_no_numbers_lists_its_fields(make):
    zero = jax.tree.map(lambda leaf: make(leaf.reshape(-1)), REPORT)
    assert str(zero).startswith("Report\n  errors_per_link")


@pytest.mark.parametrize(
    "make",
    [
        jnp.sum,
        lambda leaf: leaf * jnp.nan,
        lambda leaf: leaf[None] if leaf.ndim else leaf,
        lambda leaf: np.zeros(leaf.shape, jax.dtypes.float0),
    ],
)
def test_what_a_report_was_mapped_to_prints_all_the_same(make):
    other = jax.tree.map(make, REPORT)
    assert str(other).startswith("Report")
    assert other._repr_html_().startswith("<table><caption>Report")


def test_deleted_arrays_are_named_by_their_shape():
    gone = jax.tree.map(jnp.copy, REPORT)
    gone.errors_per_link.delete()
    assert re.match(r"Report\n  errors_per_link +uint32\[4\]\n", str(gone))


def test_masked_and_compressed_reports_print():
    counters = ("attempts", "failures", "copies", "restarts", "wrong_sums", "uncorrected")
    counts = {name: jnp.float32(3) for name in counters}
    masked = SecureReport(REPORT, aborted=jnp.bool_(True), survivors=jnp.int32(4), **counts)
    lines = str(masked).splitlines()
    assert lines[0] == "SecureReport: aborted, the result is NaN"
    assert lines[-9:] == str(REPORT).splitlines()
    zero = jnp.uint32(0)
    both = CompressReport((REPORT, masked), zero, zero, jnp.bool_(False), jnp.float32(1), 64)
    lines = str(both).splitlines()
    assert lines[0] == "CompressReport: replicas agree 1"
    assert [line.split() for line in lines[-2:]] == [
        ["0", "4,000", "41", "4,000"],
        ["1", "4,000", "41", "4,000"],
    ]


def test_costs_budgets_and_epsilons_show_every_number():
    cost = jq.Ring().cost(10, 4)
    shown = dict(re.findall(r"^  (\w+) +([\d,]+)", str(cost), re.MULTILINE))
    assert shown == {name: str(value) for name, value in vars(cost).items() if name != "num_nodes"}
    assert "4 nodes" in str(cost)
    names = [field.name for field in dataclasses.fields(jq.economics.Budget)][:-1]
    rates = {name: jnp.array([1.5, 0.25]) for name in names}
    code = jq.reed_solomon(15, 11)
    budget = jq.economics.Budget(**rates | {"bits": jnp.array([400.0] * 2)}, protection=code)
    lines = str(budget).splitlines()
    assert lines[0].endswith(f"protection {code}; a batch (2,)")
    assert [line.split()[0] for line in lines[1:]] == names
    assert lines[1].split()[:4] == ["net_bits_per_qubit", "0.25", "to", "1.5"]
    assert lines[3].split()[:2] == ["bits", "400"]
    epsilon = jq.secure.epsilon(jq.secure.Security(attempts=1), 10_000, jq.GHZSource(4))
    assert f"overhead {epsilon.overhead:g} " in " ".join(str(epsilon).split())
    assert str(epsilon).startswith(f"Epsilon: {epsilon.per_step:.3g} a step, 0.005 in all\n")


def test_html_has_the_cells_of_the_text_escaped():
    panel = Panel("A & B", [("x<y", "1"), ("z", "-2.5")], ("name", "value"))
    page = as_html(panel)
    assert page.startswith("<table><caption>A &amp; B</caption><tr><th ")
    cells = re.findall(r'<t[hd] style="text-align:(\w+)">([^<]*)</t[hd]>', page)
    assert cells == [
        *(("left", "name"), ("right", "value")),
        *(("left", "x&lt;y"), ("right", "1"), ("left", "z"), ("right", "-2.5")),
    ]
    assert as_text(Panel("alone", [])) == "alone"
    for result in (REPORT, jq.Ring().cost(10, 4)):
        assert result._repr_html_().count("<tr>") == sum(
            line.startswith("  ") for line in str(result).splitlines()
        )
