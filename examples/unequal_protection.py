"""Unequal protection: the high symbols of every number coded, the low ones bare.

An error in the highest bit of a 16-bit number is a billion times worse, squared, than one in the
lowest. This compares, at (nearly) the same number of qubits, coding the highest symbols with a
strong code against coding all symbols with a weaker one.
"""

from rich import box
from rich.console import Console
from rich.table import Table

import jaxqring as jq

FIDELITY = 0.97


def main() -> None:
    wire = jq.FixedPoint(bits=16)
    link = jq.superdense(jq.werner(fidelity=FIDELITY))
    strong = jq.reed_solomon(255, 143)
    title = f"one hop at fidelity {FIDELITY}: RS(255,143) on high symbols, RS(255,k) on all"
    table = Table(title=title, box=box.SIMPLE_HEAD, pad_edge=False)
    error = "rms error\n(codes)"
    for name in ("symbols\ncoded", "qubits", error, "k", "qubits", error):
        table.add_column(name, justify="right")
    table.add_column("mean square\nratio", justify="right")
    for symbols in range(1, 9):
        unequal, qubits = jq.codes.hop_error(wire, link, jq.codes.Unequal(strong, symbols))
        # The strongest code for all symbols that takes no fewer qubits.
        k = int(255 * wire.bits / 2 / float(qubits))
        k -= (255 - k) % 2
        uniform, spent = jq.codes.hop_error(wire, link, jq.reed_solomon(255, min(k, 253)))
        table.add_row(
            str(symbols),
            f"{float(qubits):.2f}",
            f"{float(unequal) ** 0.5:.3g}",
            str(min(k, 253)),
            f"{float(spent):.2f}",
            f"{float(uniform) ** 0.5:.3g}",
            f"{float(uniform / unequal):.3g}",
        )
    Console().print(table)


if __name__ == "__main__":
    main()
