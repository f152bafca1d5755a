"""`python -m ssd_lightning.demo`: start a local web page and a JSON endpoint for a detector."""

from ssd_lightning.run_command import run_command


def main() -> None:
    """Run the command."""
    run_command("demo", "ssd_lightning.commands.demo:demo")


if __name__ == "__main__":
    main()
