"""Make a W&B report of a project: curves, scores and settings of its runs, and the images that they logged.

    pip install wandb-workspaces && wandb login
    python examples/wandb_report.py ENTITY/PROJECT

It prints the address of the report. Edit it there, or change `panels` here.
"""

import argparse

import wandb_workspaces.reports.v2 as wr

SCORES = ("val/map_area", "val/map_11point", "val/map", "val/map_50")
LOSSES = ("train/loss_box", "train/loss_cls", "val/loss_box", "val/loss_cls", "lr")
SIZES = ("val/map_small", "val/map_medium", "val/map_large")
SPEED = ("speed/images_per_s", "speed/data_wait", "speed/peak_memory_mib")
MEDIA = ("val/images", "train/batch", "train/matched_priors")
TABLE = "val/ap_per_class"
GROUPS = (SCORES, LOSSES, SIZES, SPEED, MEDIA)
STEP = "trainer/global_step"


def panels() -> list[tuple[str, str, list]]:
    """Return a heading, an explanation and the panels of each section."""
    best = wr.BarPlot(title="best mAP (area)", metrics=["val/map_area"], orientation="h")
    return [
        ("Scores", "mAP of the validation images, as VOC and COCO define it.", [*_curves(SCORES), best]),
        ("Losses", "Losses on training and validation images. `lr` is the learning rate.", _curves(LOSSES)),
        ("Sizes of objects", "COCO's mAP (.5:.95) of small, medium and large objects.", _curves(SIZES)),
        ("Classes", "AP of each class.", [wr.WeavePanelSummaryTable(table_name=TABLE)]),
        ("Images", "The same validation images each time, and what the network was trained on.", _media(MEDIA)),
        ("Speed", "If `data_wait` is high, the device waits for images.", _curves(SPEED)),
        ("Settings", "Settings that differ between the runs.", [wr.RunComparer(diff_only=True)]),
    ]


def build_report(entity: str, project: str) -> wr.Report:
    """Build the report of all runs of a project."""
    blocks: list = [wr.TableOfContents()]
    for heading, explanation, shown in panels():
        runs = wr.Runset(entity=entity, project=project, name="runs")
        blocks += [wr.H1(heading), wr.P(explanation), wr.PanelGrid(runsets=[runs], panels=shown)]
    return wr.Report(
        entity=entity,
        project=project,
        title=f"{project}: object detection",
        description="Scores, losses, images and settings of the runs.",
        width="fluid",
        blocks=blocks,
    )


def _curves(metrics: tuple[str, ...]) -> list:
    return [wr.LinePlot(title=metric, x=STEP, y=[metric]) for metric in metrics]


def _media(keys: tuple[str, ...]) -> list:
    return [wr.MediaBrowser(title=key, media_keys=[key]) for key in keys]


def main() -> None:
    """Build and save the report, and print its address."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("project", metavar="ENTITY/PROJECT")
    entity, slash, project = parser.parse_args().project.partition("/")
    if not (entity and slash and project):
        parser.error("the project is ENTITY/PROJECT, as in the address of its page")
    report = build_report(entity, project)
    report.save()
    print(report.url)


if __name__ == "__main__":
    main()
