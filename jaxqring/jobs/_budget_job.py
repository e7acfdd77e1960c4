"""`jaxqring budget`: net rates of codes on hardware, beside the factor of two of perfect pairs."""

import dataclasses
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxqring import _checks as checks
from jaxqring._fields import (
    NOT_NEGATIVE,
    as_written,
    check_fields,
    check_file_name,
    no_other_keys,
)
from jaxqring._files import number, to_json, write_whole
from jaxqring._progress import progress_bars
from jaxqring.codec import FixedPoint
from jaxqring.codes import BlockCode, IdealCode, Retransmit, Unequal
from jaxqring.economics import Budget, budget
from jaxqring.jobs._code_config import CodeConfig
from jaxqring.link import SymbolChannel, superdense
from jaxqring.physics.pairs import werner
from jaxqring.ring import Ring
from jaxqring.supply import Supply, generate, purify, stock

if TYPE_CHECKING:
    from rich.console import Console

#: Infidelities of the curves in the figure.
CURVE = np.concatenate([[0.0], np.geomspace(1e-4, 0.3, 120)])


@no_other_keys
@dataclasses.dataclass(frozen=True)
class HardwareConfig:
    """The supply of pairs; see `jaxqring.supply.generate`, `stock` and `purify`.

    Attributes:
      fidelity: of a fresh pair on an elementary link, in [1/4, 1].
      length: metres between two nodes of the ring.
      links: elementary links between them, joined by swapping.
      attenuation_length: metres of fibre that let 1/e of the photons through.
      detector_efficiency: probability that a photon is detected.
      scheme: "midpoint" or "direct".
      modes: pairs attempted side by side.
      signal_speed: metres per second in the fibre.
      cycle_time: seconds that an attempt takes besides the travel time of the light.
      t1: seconds, relaxation time of the memories.
      t2: seconds, coherence time of the memories, at most 2 t1.
      gate_error: probability, of swaps, of purification and of the Bell measurement.
      readout_error: probability that a measured bit is read wrongly, wherever one is.
      stock_pairs: pairs taken at once from a stock, the newest first.
      rounds: of purification, at the moment of use.
      protocol: "dejmps" or "bbpssw".
    """

    fidelity: float = 0.999
    length: float = 10e3
    links: int = 1
    attenuation_length: float = 22e3
    detector_efficiency: float = 0.9
    scheme: Literal["midpoint", "direct"] = "midpoint"
    modes: float = 10_000.0
    signal_speed: float = 2e8
    cycle_time: float = 1e-6
    t1: float = 10.0
    t2: float = 5.0
    gate_error: float = 1e-3
    readout_error: float = 1e-3
    stock_pairs: float = 100_000.0
    rounds: int = dataclasses.field(default=0, metadata=NOT_NEGATIVE)
    protocol: Literal["dejmps", "bbpssw"] = "dejmps"

    def __post_init__(self) -> None:
        check_fields(self, "hardware.")

    def parameters(self) -> dict[str, float]:
        """The parameters that can be differentiated, by name."""
        return {
            name: value
            for name, value in dataclasses.asdict(self).items()
            if isinstance(value, float)
        }

    def supply(self, parameters: dict[str, Any]) -> Supply:
        """The supply of pairs, with these values in place of its own."""
        at = {**dataclasses.asdict(self), **parameters}
        noise = {"gate_error": at["gate_error"], "readout_error": at["readout_error"]}
        memory = {"t1": at["t1"], "t2": at["t2"]}
        names = ("length", "links", "attenuation_length", "detector_efficiency", "scheme", "modes")
        fibre = {name: at[name] for name in (*names, "signal_speed", "cycle_time")}
        fresh = generate(werner(fidelity=at["fidelity"]), **fibre, **memory, **noise)
        stored = stock(fresh, pairs=at["stock_pairs"], **memory)
        return purify(stored, rounds=self.rounds, protocol=self.protocol, **noise)


@no_other_keys
@dataclasses.dataclass(frozen=True)
class LineConfig:
    """The line that carries qubits, or bits in their place.

    Attributes:
      qubit_rate: qubits per second, in hertz.
      bit_rate: bits per second of the same line used classically, in hertz.
      latency: seconds of one hop.
      encode_time: seconds of one hop.
      measure_time: seconds of one hop.
      compute_time: seconds between two collectives, in which pairs are made.
    """

    qubit_rate: float = 1e9
    bit_rate: float = 1e9
    latency: float = 5e-5
    encode_time: float = 0.0
    measure_time: float = 0.0
    compute_time: float = 1.0

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            checks.within(f"line.{name}", value, 1e-9 if "rate" in name else 0.0, 1e18)


@no_other_keys
@dataclasses.dataclass(frozen=True)
class BudgetConfig:
    """A budget: one all-reduce, several codes, one kind of hardware.

    Attributes:
      name: of the study; results go to `<out>/<name>/`.
      out: folder of all results.
      size: values that each node puts in.
      nodes: N, the nodes of the ring.
      bits: of each value on the wire.
      fidelities: of Werner pairs, for the table.
      hardware: that supplies the pairs.
      line: that carries the qubits.
      codes: to compare.

    Raises:
      TypeError: if a fidelity is not real.
      ValueError: if it is outside [1/4, 1], a count is below 1, `name` cannot be that of a file,
        N is too large for the wire, codes are missing or not of all symbols, or the hardware is
        out of range.
    """

    name: str = "budget"
    out: str = "runs"
    size: int = 1_000_000
    nodes: int = 8
    bits: int = 16
    fidelities: tuple[float, ...] = (1.0, 0.999, 0.995, 0.99, 0.98, 0.97, 0.95, 0.9)
    hardware: HardwareConfig = HardwareConfig()
    line: LineConfig = LineConfig()
    codes: tuple[CodeConfig, ...] = (CodeConfig(family="ideal"), CodeConfig())

    def __post_init__(self) -> None:
        check_fields(self)
        check_file_name("name", self.name)
        FixedPoint(self.bits).level_bits(self.nodes)
        checks.within("fidelities", np.asarray(self.fidelities), 0.25, 1.0)
        if not self.codes or any(code.top_symbols for code in self.codes):
            rule = "hold at least one code, each of all symbols (top_symbols = 0)"
            checks.refuse("codes", rule, self.codes)
        # Refuses concrete numbers that are out of range; shapes alone are computed.
        jax.eval_shape(lambda: self.link_and_supply(self.hardware.parameters()))

    @property
    def folder(self) -> Path:
        return Path(self.out) / self.name

    def link_and_supply(self, parameters: dict[str, Any]) -> tuple[SymbolChannel, Supply]:
        """The symbol channel of a link, and the pairs behind it, as functions of the hardware."""
        supply = self.hardware.supply(parameters)
        noise = {name: parameters[name] for name in ("gate_error", "readout_error")}
        return superdense(supply.pair, **noise), supply


def label(code: CodeConfig) -> str:
    """The name of a code in tables and figures."""
    if code.family == "ideal":
        return "ideal" + (f", gap {code.gap:g}" if code.gap else "")
    name = {"reed_solomon": "RS", "bch": "BCH", "secded": "SECDED", "repetition": "copies"}
    shape = f"({code.n})" if code.family == "repetition" else f"({code.n},{code.k})"
    return name[code.family] + shape + (", repeated" if code.max_attempts > 1 else "")


def run_budget(config: BudgetConfig, console: "Console | None" = None) -> dict[str, Any]:
    """Computes a budget and writes `budget.json` into `config.folder`.

    Args:
      config: the budget.
      console: that shows progress; None for silence.

    Returns:
      The contents of `budget.json`: for each code the net rate by fidelity, the break-even
      fidelity, the budget on the hardware, and the derivatives of its net rate.
    """
    # In double precision: a derivative is only as good as the tails it is made of.
    with jax.enable_x64(True):
        parameters = {name: jnp.asarray(v) for name, v in config.hardware.parameters().items()}
        links = jax.jit(config.link_and_supply)
        link, supply = links(parameters)
        slopes = jax.jit(jax.jacfwd(lambda at: config.link_and_supply(at)[0].transition))(
            parameters
        )
        capacity, curve = _rates(IdealCode(), config)
        codes = []
        with progress_bars(console) as bar:
            advance = bar("codes", total=len(config.codes))
            for code in config.codes:
                codes.append(_study(code, config, link, supply, slopes))
                advance(1)
        results = {
            "config": as_written(config),
            "supply": {
                "pair_fidelity": float(supply.pair.fidelity),
                "pairs_per_second": float(supply.pairs_per_second),
                "raw_pairs_per_pair": float(supply.raw_pairs_per_pair),
                "generation_prob": float(supply.generation_prob),
            },
            "capacity": capacity,
            "curve_infidelity": CURVE.tolist(),
            "curve_capacity": curve,
            "codes": codes,
        }
    write_whole(config.folder / "budget.json", (to_json(results) + "\n").encode())
    return results


def _study(
    code: CodeConfig,
    config: BudgetConfig,
    link: SymbolChannel,
    supply: Supply,
    slopes: dict[str, jax.Array],
) -> dict[str, Any]:
    """The entry of one code; `slopes` are the derivatives of the link's transition matrix."""
    protection = code.build()
    assert not isinstance(protection, Unequal)  # refused by the configuration

    def on(transition: jax.Array) -> tuple[jax.Array, Budget]:
        ring = Ring(SymbolChannel(transition), FixedPoint(config.bits), protection=protection)
        line = dataclasses.asdict(config.line)
        result = budget(ring, config.size, config.nodes, supply, **line)
        return result.net_bits_per_qubit, result

    # Hardware acts on the net rate through the link alone.
    (_, result), slope = jax.jit(jax.value_and_grad(on, has_aux=True))(link.transition)
    names = [f.name for f in dataclasses.fields(result) if f.name != "protection"]
    names += ["online_saving", "lifetime_saving", "speedup"]
    rates, curve = _rates(protection, config)
    return {
        "name": label(code),
        "net_rates": rates,
        "curve": curve,
        "break_even_fidelity": result.break_even_fidelity,
        "budget": {name: float(getattr(result, name)) for name in names},
        "derivatives": {name: float(jnp.sum(slope * s)) for name, s in slopes.items()},
    }


def _rates(
    protection: BlockCode | Retransmit | IdealCode, config: BudgetConfig
) -> tuple[list[float], list[float]]:
    """Net bits per online qubit on Werner pairs alone: for the table, and along the curve."""
    fidelities = jnp.concatenate([jnp.asarray(config.fidelities), 1 - jnp.asarray(CURVE)])
    rates = jax.jit(lambda f: protection.net_rate(superdense(werner(fidelity=f))))(fidelities)
    numbers = [float(rate) for rate in rates]
    return numbers[: len(config.fidelities)], numbers[len(config.fidelities) :]


def one_percent_effects(results: dict[str, Any]) -> dict[str, float]:
    """Changes of the first code's net rate for one percent more of each hardware parameter.

    So that units do not matter; of the fidelity, one percent of the infidelity.

    Args:
      results: contents of `budget.json`.
    """
    slopes, hardware = results["codes"][0]["derivatives"], results["config"]["hardware"]
    values = {name: number(hardware[name]) for name in slopes}
    effects = {
        name: slope * values[name] / 100
        for name, slope in slopes.items()
        if name != "fidelity" and math.isfinite(values[name])
    }
    return {**effects, "1 - fidelity": -slopes["fidelity"] * (1 - values["fidelity"]) / 100}
