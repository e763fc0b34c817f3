"""`dfd-bench`: what this machine can carry."""

from __future__ import annotations

import click

from dfd_benchmarks.gpu.cli import gpu
from dfd_benchmarks.peers.cli import peers
from dfd_benchmarks.results.cli import chart, compare
from dfd_benchmarks.scenario.cli import scenario
from dfd_benchmarks.sequence.cli import gru, recurrent
from dfd_benchmarks.service.cli import serve
from dfd_benchmarks.soak.cli import soak
from dfd_benchmarks.stages.cli import stages, startup
from dfd_benchmarks.streams.cli import memory, streams
from dfd_benchmarks.sweep.cli import sweep
from dfd_edge.cli.group import CommandGroup
from dfd_training.quiet import quiet_tensorflow


@click.group(
    cls=CommandGroup, extra="bench", context_settings={"help_option_names": ["-h", "--help"]}
)
@click.version_option(package_name="dfd-edge")
def main() -> None:
    """Measure what this machine can carry.

    Figures are taken several times and given as minimum, median and maximum. Ratios compare two
    things measured in the same run. Leave the machine idle meanwhile.
    """
    quiet_tensorflow()


main.add_command(gru)
main.add_command(peers)
main.add_command(recurrent)
main.add_command(stages)
main.add_command(sweep)
main.add_command(startup)
main.add_command(streams)
main.add_command(memory)
main.add_command(soak)
main.add_command(serve)
main.add_command(scenario)
main.add_command(compare)
main.add_command(chart)
main.add_command(gpu)
