"""Flags: what is read, what is refused, and how a mistake ends."""

import pathlib
import subprocess
import sys

import pytest
from absl import flags

from rs_keras import flag_definitions
from tests.parsed_flags import parsed


def test_flagfile_text_reads_back_as_the_same_config(tmp_path):
    first = parsed(
        "--dataset=shapes",
        "--workdir=w",
        "--resolutions=32,64",
        "--area=0.2,1",
        "--jit",
        "--distillation=vanilla",
    )
    file = tmp_path / "flags.cfg"
    file.write_text(first.flagfile())
    assert parsed(f"--flagfile={file}", "--workdir=w") == first


def test_method_decides_the_distillation():
    base = ("--dataset=shapes", "--workdir=w")
    assert parsed(*base).mode == "full"
    assert parsed(*base, "--distillation=top_down").mode == "top_down"
    assert parsed(*base, "--method=parallel").mode == "none"
    assert parsed(*base, "--method=single", "--resolutions=64").mode == "none"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--workdir=w"], "--dataset is needed. Received: no --dataset"),
        (["--dataset=shapes"], "--workdir is needed. Received: no --workdir"),
        (
            ["--dataset=shapes", "--workdir=w", "--resolutions=64,64"],
            "must be distinct positive integers, in pixels. Received: "
            "resolutions=(64, 64)",
        ),
        (
            ["--dataset=shapes", "--workdir=w", "--resolutions=64,x"],
            "--resolutions must be integers with commas between. "
            "Received: --resolutions=64,x",
        ),
        (
            ["--dataset=shapes", "--workdir=w", "--method=single"],
            "--method=single trains one resolution. "
            "Received: --resolutions=224,192,160,128,96",
        ),
        (
            ["--dataset=shapes", "--workdir=w", "--resolutions=64"],
            "--method=rsnet needs several resolutions",
        ),
        (
            [
                "--dataset=shapes",
                "--workdir=w",
                "--method=parallel",
                "--distillation=full",
            ],
            "--distillation is for --method=rsnet. "
            "Received: --method=parallel --distillation=full",
        ),
        (
            [
                "--dataset=shapes",
                "--workdir=w",
                "--method=shared_bn",
                "--resolutions=64",
                "--views=2",
            ],
            "Received: --method=shared_bn --views=2",
        ),
        (
            ["--dataset=shapes", "--workdir=w", "--scan=off", "--on_bad_image=error"],
            "--on_bad_image=error needs --scan=on. Received: --scan=off",
        ),
        (
            [
                "--dataset=shapes",
                "--workdir=w",
                "--accumulate=3",
                "--batch_size=8",
            ],
            "--accumulate must divide --batch_size. "
            "Received: --accumulate=3 --batch_size=8",
        ),
        (
            ["--dataset=shapes", "--workdir=w", "--learning_rate=nan"],
            "--learning_rate must be a finite number. Received: --learning_rate=nan",
        ),
        (
            ["--dataset=shapes", "--workdir=w", "--area=0.5"],
            "--area must be two numbers 0 < LOW <= HIGH <= 1. Received: --area=0.5",
        ),
        (
            ["--dataset=shapes", "--workdir=w", "--resize=device"]
            + ["--crops=per_resolution"],
            "--resize=device makes small images of large ones: it needs --crops=shared "
            "and --preprocessing=rsnet. Received: --crops=per_resolution "
            "--preprocessing=rsnet",
        ),
        (
            ["--dataset=shapes", "--workdir=w", "--area=a,b"],
            "--area must be numbers with commas between. Received: --area=a,b",
        ),
        (
            ["--dataset=shapes", "--workdir=w", "--views=2", "--resolutions=64,32"],
            "More than one view needs exactly one resolution",
        ),
        (
            ["--dataset=shapes", "--workdir=w", "--epochs=3", "--warmup_epochs=3"],
            "--warmup_epochs must be less than --epochs. "
            "Received: --warmup_epochs=3.0 --epochs=3",
        ),
        (
            [
                "--dataset=shapes",
                "--workdir=w",
                "--preprocessing=official_quant",
                "--flip=shared",
            ],
            "has its own --crops, --flip and --views. Received: --crops=shared",
        ),
        (
            ["--dataset=shapes", "--workdir=w", "--schedule=steps"],
            "--schedule=steps needs --decay_epochs and has no --warmup_epochs",
        ),
        (
            ["--dataset=shapes", "--workdir=w", "--decay_epochs=3"],
            "others have no --decay_epochs. Received: --schedule=cosine",
        ),
        (
            [
                "--dataset=shapes",
                "--workdir=w",
                "--schedule=steps",
                "--decay_epochs=9,9",
            ],
            "must be positive and ascending. Received: --decay_epochs=9,9",
        ),
        (
            ["--dataset=shapes", "--workdir=w", "--activation_bits=2"],
            "Quantized activations need quantized weights (--weight_bits). "
            "Received: --weight_bits=32 --activation_bits=2",
        ),
        (
            ["--dataset=shapes", "--workdir=w", "--rest_bits=8"],
            "--rest_bits need quantized weights (--weight_bits). "
            "Received: --weight_bits=32 --activation_bits=32 --rest_bits=8",
        ),
        (
            ["--dataset=shapes", "--workdir=w", "--shortcut=A"],
            "--shortcut=A is for ResNets with quantized weights.",
        ),
        (
            [
                "--dataset=shapes",
                "--workdir=w",
                "--shortcut=A",
                "--weight_bits=2",
                "--model=mobilenet_v2",
            ],
            "Received: --model=mobilenet_v2 --weight_bits=2",
        ),
    ],
)
def test_contradictions_are_one_sentence(arguments, sentence):
    with pytest.raises(ValueError) as error:
        parsed(*arguments)
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


def test_differences_name_both_values_and_leave_free_flags_out():
    ours = parsed("--dataset=shapes", "--workdir=w", "--seed=1", "--threads=1")
    theirs = parsed(
        "--dataset=shapes",
        "--workdir=v",
        "--seed=2",
        "--threads=2",
        "--activation_memory=one_resolution",
    )
    assert ours.differences(theirs.flagfile()) == ["--seed is 2 there, 1 here"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--modle=resnet18"], "Unknown command line flag 'modle'"),
        (["--model=vgg16"], "Received: --model=vgg16\n"),
        (["--distillation=half"], "Received: --distillation=half\n"),
        (["--weight_bits=9"], "Received: --weight_bits=9\n"),
        (["--epochs=0"], "Received: --epochs=0\n"),
        (["--epochs=many"], "--epochs must be an integer. Received: --epochs=many\n"),
        (["--width=x"], "--width must be a number. Received: --width=x\n"),
        (["stray"], "Received: stray\n"),
        (["--dataset=shapes"], "--workdir is needed"),
        (["--flagfile=no_such_file.cfg"], "error: Unable to open flagfile"),
    ],
)
def test_wrong_command_line_exits_with_2_and_without_traceback(arguments, sentence):
    found = subprocess.run(
        [sys.executable, "-m", "rs_keras.train", *arguments],
        capture_output=True,
        text=True,
        cwd=pathlib.Path(__file__).parent.parent,
    )
    assert found.returncode == 2, found.stderr
    assert found.stderr.startswith("error: ")
    assert "Received: " in found.stderr
    assert sentence in found.stderr
    assert "Traceback" not in found.stderr


def test_flags_offer_what_is_built():
    """config lists names without importing Keras; here they meet their owners."""
    from rs_keras import build
    from rs_keras.data import multi_resolution
    from rs_keras.losses import distillation

    assert tuple(build.MODELS) == flag_definitions.MODELS
    assert distillation.MODES == flag_definitions.MODES
    for flag, allowed in (
        ("crops", multi_resolution.CROPS),
        ("flip", multi_resolution.FLIPS),
    ):
        assert tuple(flags.FLAGS[flag].parser.enum_values) == allowed


def test_a_flagfile_with_comments_is_compared_by_its_flags():
    ours = parsed("--dataset=shapes", "--workdir=w", "--seed=1")
    text = "# a note\n\n  " + ours.flagfile().replace("--seed=1", "--seed=2")
    assert ours.differences(text) == ["--seed is 2 there, 1 here"]


def test_help_lists_the_flags_and_succeeds():
    found = subprocess.run(
        [sys.executable, "-m", "rs_keras.train", "--help"],
        capture_output=True,
        text=True,
        cwd=pathlib.Path(__file__).parent.parent,
    )
    assert found.returncode == 0
    for field in ("--resolutions", "--distillation", "--[no]jit", "--workdir"):
        assert field in found.stdout


def test_flags_of_another_run_and_flags_that_may_change_are_told_apart():
    first = parsed("--dataset=shapes", "--workdir=w")
    second = parsed("--dataset=shapes", "--workdir=v", "--epochs=7", "--seed=1")
    text = first.flagfile()
    assert second.differences(text) == ["--seed is 0 there, 1 here"]
    assert second.changes(text) == ["--epochs is 120 there, 7 here"]


def test_a_run_from_before_a_flag_did_what_the_flag_has_for_it():
    config = parsed("--dataset=shapes", "--workdir=w")
    older = config.flagfile().replace("--resize=exact\n", "")
    assert older != config.flagfile() and config.differences(older) == []
    other = parsed("--dataset=shapes", "--workdir=w", "--resize=device")
    assert other.differences(older) == ["--resize is exact there, device here"]
