"""Examples that the help of every verb ends with."""

from __future__ import annotations

from typing import NamedTuple


class Example(NamedTuple):
    """A command line, without its first word, and what it does."""

    line: str
    does: str


EXAMPLES: dict[str, tuple[Example, ...]] = {
    "": (
        Example("predict photo.jpg", "people in a picture; see poise-out/photo.jpg"),
        Example("predict clip.mp4 --track", "people in a video, each with a number that stays"),
        Example("predict 0 --to 10", "ten seconds of the first camera"),
        Example("predict photos --json > poses.json", "only the numbers, for another program"),
        Example("models", "which models come with Poise"),
        Example("train --help", "how to train a model of your own"),
    ),
    "predict": (
        Example("predict photo.jpg holiday 'archive/**/*.png'", "pictures, a folder, a pattern"),
        Example("predict clip.mp4 --track --smooth offline", "a video: people keep their numbers, nothing trembles"),
        Example("predict clip.mp4 --from 1:30 --to 2:00 --every 2", "half of the frames of 30 seconds"),
        Example("predict rtsp://host/door --track", "a network camera, until Ctrl-C"),
        Example("predict crowd.jpg --tiles 3x2", "small and far people"),
        Example("predict clip.mp4 --anonymise blur", "faces made unrecognisable"),
        Example("predict photos --save csv --save yolo", "also a table, and labels to train on"),
        Example("predict photo.jpg -m pose.safetensors --flip", "a model of your own, more exact and slower"),
        Example("predict photos --json --min-score 0.5", "poses as JSON on standard output"),
        Example("predict clip.mp4 --device cuda --half", "on a GPU, in float16; an error if there is none"),
    ),
    "evaluate": (
        Example("evaluate --annotations val.json --images val", "the default model on a COCO set"),
        Example("evaluate -m best.safetensors --annotations val.json --json", "a model of your own, as JSON"),
        Example("evaluate a.safetensors b.safetensors --annotations val.json", "is the second better than the first?"),
    ),
    "train": (
        Example("train directpose_mobilenetv2 --data data --run runs/a", "train by a recipe"),
        Example("train mine.yaml --set train.steps=1000", "by your own settings, one of them changed"),
        Example("train --resume --run runs/a", "go on after Ctrl-C"),
    ),
    "ablation": (
        Example("ablation smpr --like small.yaml --rows baseline,psm", "two rows, with a small network"),
        Example("ablation smpr --steps 500 --json", "all rows, a short training each"),
        Example("ablation augmentation --like mine.yaml --steps 3000", "which augmentations help on your data"),
    ),
    "convert": (
        Example("convert theirs.pth mine.safetensors --from directpose", "the authors' checkpoint as ours"),
        Example("convert theirs.pth -o mine.safetensors --from mmpose-rsn", "mmpose's"),
    ),
    "export": (
        Example("export default", "the default model as an ONNX file; poise predict photo.jpg -m FILE runs it"),
        Example("export best.safetensors --format openvino --half -o best.xml", "for Intel processors, half as large"),
        Example("export default --dynamic -o any.onnx", "for pictures of any shape, without more padding"),
        Example("export default --int8 --calibrate photos --annotations val.json", "eight bits, and what they cost"),
    ),
    "benchmark": (
        Example("benchmark", "the default model: stages, memory, people, sizes, beside Keypoint R-CNN"),
        Example("benchmark default --runtime torch,onnx,openvino --people '' --scales ''", "three runtimes"),
        Example("benchmark directpose_r50 --size 800x1088 --threads 1", "a preset with random weights"),
        Example("benchmark rsn18 --batch 1,8,16 --no-contest --json", "a top-down model, for a program"),
        Example("benchmark default --device cuda --bf16 --compile", "on a GPU"),
        Example("benchmark data directpose_mobilenetv2 --data data --workers 0,1,2", "how fast pictures are made"),
        Example("benchmark training smpr_mobilenetv2 --ways plain,channels_last,compiled", "how fast a recipe trains"),
    ),
    "models": (
        Example("models", "names, inputs and measured numbers"),
        Example("models --json", "the same for a program"),
    ),
    "data": (
        Example("data check train.json --images train", "what is wrong with a set, before training on it"),
        Example("data show train.json --count 12 -o look", "the truth, drawn on twelve pictures"),
        Example("data stats train.json", "how many people, how large, how often each keypoint"),
        Example("data convert people.yaml people.json --to coco", "from one format to another"),
        Example("data split all.json --parts train=0.9,val=0.1 -o parts", "one file into parts"),
    ),
    "data check": (Example("data check train.json --images train", "everything that is wrong with it"),),
    "data stats": (Example("data stats train.json --plot numbers.png", "counts and sizes, also as a plot"),),
    "data show": (
        Example("data show train.json --count 12 -o look", "the truth, drawn on twelve pictures"),
        Example("data show train.json --augment mosaic --out sheet.jpg", "what an augmentation does, on one sheet"),
        Example("data show train.json --augment rsn_small --count 6 -o crops", "what a recipe would train on"),
    ),
    "data convert": (Example("data convert people.yaml people.json --to coco", "YOLO labels as a COCO file"),),
    "data label": (Example("data label train.json -o labelled.json", "faces, where only bodies are labelled"),),
    "data split": (Example("data split all.json --parts train=0.9,val=0.1 -o parts", "nine tenths to train on"),),
}
"""By verb; the empty one is ``poise`` itself."""


def epilog(verb: str) -> str | None:
    """The examples of a verb as the end of its help; None for a verb without any."""
    examples = EXAMPLES.get(verb)
    if not examples:
        return None
    lines = [f"  poise {example.line}\n      {example.does}" for example in examples]
    # \b keeps the lines as they are
    return "\b\n" + "\n".join(["Examples:" if verb else "First steps:", *lines])
