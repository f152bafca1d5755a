"""`python -m ssd_lightning.report`: write an HTML page for one run, or a comparison of several."""

from ssd_lightning.run_command import run_command


def main() -> None:
    """Run the command."""
    run_command("report", "ssd_lightning.commands.report:report")


if __name__ == "__main__":
    main()
