"""Recipes: the YAML that is read, overlays, overrides, typed construction, and what is refused."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gansound.mel import MelSpec
from gansound.recipe import RecipeError, build, describe, load_recipe, parse_yaml, recipe_names, to_yaml
from tests.recipe_classes import Hinge, Net, Training, WideNet

HERE = "tests.recipe_classes"
ALLOW = [HERE]
GOOD = f"""
net:
  class_path: {HERE}.Net
  init_args: {{width: 8, slope: 1, rates: [4, 4]}}
data: ~/sounds
steps: 20
entries:
  a:
    net: {{class_path: {HERE}.Net, init_args: {{width: 1}}}}
    weight: 1e-4
  b:
    net: {{class_path: {HERE}.WideNet}}
labels: [yes, no, on, off]
"""


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text)
    return folder


def make(folder: Path, text: str = GOOD, **overrides: Any) -> Any:
    overrides = {key.replace("__", "."): value for key, value in overrides.items()}
    recipe = load_recipe(write(folder, recipe=text) / "recipe.yaml", overrides, allow=ALLOW)
    return build(recipe, Training, "", allow=ALLOW)


def message(folder: Path, text: str = GOOD, **overrides: Any) -> str:
    with pytest.raises(RecipeError) as error:
        make(folder, text, **overrides)
    return str(error.value)


def test_a_recipe_becomes_typed_objects(tmp_path):
    made = make(tmp_path)
    assert type(made) is Training
    assert (made.net.width, made.net.rates, made.net.slope, made.net.mode) == (8, (4, 4), 1.0, "zero")
    assert type(made.net.slope) is float
    assert made.data == Path("~/sounds").expanduser()
    assert made.entries["a"].weight == 1e-4
    assert type(made.entries["b"].net) is WideNet
    assert made.labels == ["yes", "no", "on", "off"]
    assert (made.steps, made.ema, made.amp) == (20, None, False)


@pytest.mark.parametrize(
    "text, value",
    [
        ("1e-4", 1e-4),
        ("1E5", 1e5),
        ("-2.5e3", -2500.0),
        (".5", 0.5),
        ("3.", 3.0),
        ("10_000", 10000),
        ("0", 0),
        ("-7", -7),
        ("007", "007"),
        ("1:30", "1:30"),
        ("0x10", "0x10"),
        ("yes", "yes"),
        ("off", "off"),
        ("true", True),
        ("2026-01-01", "2026-01-01"),
        ("~", None),
        ("", None),
        ("null", None),
        ("'1'", "1"),
        ("e5", "e5"),
        ("[1, a]", [1, "a"]),
    ],
)
def test_what_plain_yaml_means(text, value):
    read = parse_yaml(text, "x")
    assert read == value
    assert type(read) is type(value)


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.sampled_from(
        ["1e-4", "yes", "no", "null", "~", "007", "=", "<<", "2001-01-01", "1_0", ".inf", "0x1f"]
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), PLAIN, max_size=4))
def test_to_yaml_round_trips(recipe):
    assert parse_yaml(to_yaml(recipe), "x") == recipe


def test_to_yaml_writes_tuples_and_paths():
    assert parse_yaml(to_yaml({"a": (1, 2), "b": Path("x/y")}), "x") == {"a": [1, 2], "b": "x/y"}


@pytest.mark.parametrize(
    "text, words",
    [
        ("a: 1\na: 2", "duplicate key 'a'"),
        ("a: {b: 1, b: 2}", "duplicate key 'b'"),
        ("a: 1\nb: [", "line 2"),
        ("a: !!python/object/apply:os.system [ls]", "tags (tag:yaml.org,2002:python"),
        ("a: &x 1\nb: *x", "aliases"),
        ("1: a", "isn't text"),
        ("? [a]\n: b", "isn't text"),
        ("- a", "expected a mapping"),
        ("", "expected a mapping"),
        ("a: " + "[" * 5000, "nested too deeply"),
    ],
)
def test_yaml_that_is_refused(tmp_path, text, words):
    path = write(tmp_path, r=text) / "r.yaml"
    with pytest.raises(RecipeError) as error:
        load_recipe(path)
    assert words in str(error.value)
    assert "r.yaml" in str(error.value)


def test_unreadable_recipes(tmp_path):
    (tmp_path / "b.yaml").write_bytes(b"\xff\xfe\x00a")
    for name in (tmp_path / "b.yaml", tmp_path, tmp_path / "missing.yaml", "no_such_recipe", "../nope"):
        with pytest.raises(RecipeError):
            load_recipe(name)


def test_shipped_recipes_are_found_by_name(tmp_path, monkeypatch):
    import gansound.recipe.load as load

    write(tmp_path, tiny_cpu="steps: 5")
    monkeypatch.setattr(load, "_shipped", lambda: tmp_path)
    assert recipe_names() == ["tiny_cpu"]
    assert load_recipe("tiny_cpu") == {"steps": 5}
    with pytest.raises(RecipeError, match="did you mean 'tiny_cpu'"):
        load_recipe("tiny_cp")


def test_overlays_merge_deeply(tmp_path):
    (tmp_path / "deep").mkdir()
    write(tmp_path, top=GOOD, middle="base: top\nsteps: 30\nlabels: [x]\nentries: {a: {weight: 3}}")
    write(tmp_path / "deep", leaf="base: ../middle.yaml\nnet: {init_args: {width: 16}}")
    recipe = load_recipe(tmp_path / "deep" / "leaf.yaml", allow=ALLOW)
    assert "base" not in recipe
    assert recipe["steps"] == 30
    assert recipe["labels"] == ["x"]  # lists whole
    assert recipe["entries"]["a"] == {
        "net": {"class_path": f"{HERE}.Net", "init_args": {"width": 1}},
        "weight": 3,
    }
    assert recipe["net"]["init_args"] == {"width": 16, "slope": 1, "rates": [4, 4]}


def test_a_changed_class_drops_its_arguments(tmp_path):
    write(tmp_path, top=GOOD, over=f"base: top\nnet: {{class_path: {HERE}.WideNet, init_args: {{depth: 3}}}}")
    recipe = load_recipe(tmp_path / "over.yaml", allow=ALLOW)
    assert recipe["net"] == {"class_path": f"{HERE}.WideNet", "init_args": {"depth": 3}}
    same = load_recipe(
        write(tmp_path, same=f"base: top\nnet: {{class_path: {HERE}.Net}}") / "same.yaml", allow=ALLOW
    )
    assert same["net"]["init_args"]["width"] == 8


def test_null_drops_an_entry_of_a_dict(tmp_path):
    write(tmp_path, top=GOOD, over="base: top\nentries: {a: null}")
    made = build(load_recipe(tmp_path / "over.yaml", allow=ALLOW), Training, "", allow=ALLOW)
    assert list(made.entries) == ["b"]


def test_bases_in_a_circle(tmp_path):
    write(tmp_path, a="base: b", b="base: a", c="base: [a]")
    with pytest.raises(RecipeError, match="circle"):
        load_recipe(tmp_path / "a.yaml")
    with pytest.raises(RecipeError, match="base: got"):
        load_recipe(tmp_path / "c.yaml")


def test_dotted_overrides(tmp_path):
    made = make(
        tmp_path,
        steps="7",
        net__width="3",
        net__init_args__slope="1e-2",
        entries__a__weight="2",
        labels__1="maybe",
        data="/x",
        ema="0.5",
        amp=True,
    )
    assert (made.steps, made.net.width, made.net.slope, made.net.rates) == (7, 3, 0.01, (4, 4))
    assert made.entries["a"].weight == 2.0
    assert made.labels == ["yes", "maybe", "on", "off"]
    assert (made.data, made.ema, made.amp) == (Path("/x"), 0.5, True)


def test_a_presets_values_are_changed_one_by_one(tmp_path):
    folder = write(
        tmp_path,
        top="mel: hifigan",
        over="base: top\nmel: {fmax: 7000}",
        other="base: over\nmel: {preset: nemo}",
    )
    assert load_recipe(folder / "over.yaml") == {"mel": {"preset": "hifigan", "fmax": 7000}}
    assert load_recipe(folder / "other.yaml") == {"mel": {"preset": "nemo"}}
    changed = load_recipe(folder / "over.yaml", {"mel.sample_rate": "16000"})["mel"]
    assert changed == {"preset": "hifigan", "fmax": 7000, "sample_rate": 16000}
    # A whole comes before its parts, in whatever order they are given.
    both = load_recipe(folder / "top.yaml", {"mel.fmax": "7000", "mel": "nemo"})["mel"]
    assert both == {"preset": "nemo", "fmax": 7000}


def test_a_class_override_comes_before_its_arguments(tmp_path):
    made = make(tmp_path, net__depth="5", net__class_path=f"{HERE}.WideNet")
    assert type(made.net) is WideNet
    assert (made.net.depth, made.net.width) == (5, 4)


@pytest.mark.parametrize(
    "overrides, words",
    [
        ({"stepz": "3"}, "stepz: unknown key of Training; did you mean 'steps'?"),
        ({"net__widht": "3"}, "net.widht: unknown key of Net; did you mean 'width'?"),
        ({"entries__a__wieght": "3"}, "entries.a.wieght: unknown key of Entry; did you mean 'weight'?"),
        ({"steps": "1.5"}, "steps: got 1.5 (number), expected a whole number"),
        ({"steps": "1e3"}, "expected a whole number; write 1000"),
        ({"steps": "true"}, "steps: got true, expected a whole number"),
        ({"amp": "1"}, "amp: got 1 (whole number), expected true or false"),
        ({"net__slope": "true"}, "net.slope: got true, expected a number"),
        ({"steps": "''"}, "steps: got '' (text)"),
        ({"steps": "null"}, "steps: got nothing (null), expected a whole number"),
        ({"labels": "[1]"}, "labels.0: got 1 (whole number), expected text"),
        ({"labels": "x"}, "labels: got 'x' (text), expected a list of texts"),
        ({"net__mode": "reflekt"}, "did you mean 'reflect'"),
        ({"net__dilations": "[1]"}, "net.dilations: got [1] (list), expected a list of 2 whole numbers"),
        ({"net__rates__0": "x"}, "rates.0"),
        ({"net__rates__9": "1"}, "for a list of 2"),
        ({"steps__x": "1"}, "nothing below"),
        ({"net__width": "0"}, "at least 1"),
        ({"ema": "x"}, "ema: got 'x' (text), expected a number"),
        ({"speed": "1.5"}, "speed: got 1.5 (number), expected a whole number or text"),
        ({"entries": "[]"}, "entries: got"),
        ({"net": "x"}, "net: got 'x'"),
        ({"net__class_path": f"{HERE}.Hinge"}, "net.class_path: got"),
        ({"net__class_path": f"{HERE}.Nett"}, "did you mean 'Net'"),
        ({"net__class_path": f"{HERE}.nowhere.Net"}, "net.class_path: "),
        ({"a..b": "1"}, "dotted"),
        ({"steps": "["}, "steps: "),
        (
            {"net": f"{{class_path: {HERE}.Net, init_arg: {{}}}}"},
            "net.init_arg: unknown key beside class_path; did you mean",
        ),
        ({"net": f"{{class_path: {HERE}.WideNet, init_args: {{width: x}}}}"}, "net.width: got 'x'"),
        (
            {"net": f"{{class_path: {HERE}.WideNet, init_args: {{other: x}}}}"},
            "net.other: got 'x' (text), expected a whole number",
        ),
    ],
)
def test_errors_name_the_key(tmp_path, overrides, words):
    assert words in message(tmp_path, **overrides)


def test_a_missing_key_is_named(tmp_path):
    assert (
        message(tmp_path, "data: x\nentries: {}")
        == "net: missing; Training needs it: class_path and init_args (Net)"
    )
    assert "net: got {} (keys), expected class_path and init_args (Net)" in message(
        tmp_path, "net: {}\ndata: x"
    )
    assert "net.width: missing; Net needs it: a whole number" in message(
        tmp_path, f"net: {{class_path: {HERE}.Net}}\ndata: x"
    )


@pytest.mark.parametrize(
    "path",
    [
        "os.system",
        "subprocess.Popen",
        "tests.other.X",
        "torch.nn.Linear",
        "builtins.eval",
        "gansound.__main__.X",
        "gansound",
        "gansoundx.Y",
        "gansound.mel.MelSpec.preset()",
        "7",
        "",
    ],
)
def test_refused_before_any_import(tmp_path, path):
    text = f"late: {{init_args: {{x: [{{class_path: '{path}'}}]}}}}\nearly: {{class_path: '{HERE}.Net'}}"
    script = (
        "import sys\nfrom gansound.recipe import load_recipe\nbefore = set(sys.modules)\n"
        f"try:\n    load_recipe(sys.argv[1], allow=['{HERE}'])\nexcept ValueError as error:\n    print(error)\n"
        "print(sorted(set(sys.modules) - before - {'encodings.utf_8'}))"
    )
    root = Path(__file__).resolve().parents[1]
    path_yaml = write(tmp_path, r=text) / "r.yaml"
    ran = subprocess.run(
        [sys.executable, "-c", script, str(path_yaml)], capture_output=True, text=True, check=True, cwd=root
    )
    assert ran.stdout.startswith("late.init_args.x.0.class_path: ")
    assert ran.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    "path",
    [
        "gansound.recipe.build.Path",
        "gansound.recipe.load.Any",
        "gansound.mel.presets",
        "gansound.recipe.build.importlib.import_module",
        "gansound.mel.spec.torch.Tensor",
    ],
)
def test_what_a_module_merely_imports_is_not_offered(path):
    with pytest.raises(RecipeError, match=r"x\.class_path: "):
        build({"class_path": path}, Any, "x")


def test_refusal_says_how_to_allow():
    with pytest.raises(RecipeError, match=r"mypackage\.Net is refused.*--allow mypackage"):
        build({"class_path": "mypackage.Net"}, Net, "net")


def test_protocols_any_and_instances():
    assert isinstance(
        build({"class_path": f"{HERE}.Hinge"}, Training.__annotations__["loss"], "x", allow=ALLOW), Hinge
    )
    assert isinstance(build({"class_path": f"{HERE}.Hinge"}, Any, "x", allow=ALLOW), Hinge)
    net = Net(3)
    assert build(net, Net, "x") is net
    assert build({"a": [1]}, Any, "x") == {"a": [1]}


def test_context_fills_what_is_not_given():
    parameter = torch.nn.Parameter(torch.zeros(1))
    node = {"class_path": "torch.optim.AdamW", "init_args": {"lr": 1e-3, "betas": [0.5, 0.9]}}
    optimizer = build(node, torch.optim.Optimizer, "optimizer", context={"params": [parameter]})
    assert optimizer.param_groups[0]["params"] == [parameter]
    assert optimizer.defaults["betas"] == (0.5, 0.9)
    assert build({"class_path": f"{HERE}.Net"}, Net, "x", context={"width": 9}, allow=ALLOW).width == 9
    given_wins = {"class_path": f"{HERE}.Net", "init_args": {"width": 2}}
    assert build(given_wins, Net, "x", context={"width": 9}, allow=ALLOW).width == 2


def test_a_factory_is_checked_before_it_is_called():
    factory = Callable[..., torch.optim.Optimizer]
    made = build({"class_path": "torch.optim.SGD", "init_args": {"lr": 1}}, factory, "optimizer")
    assert made([torch.nn.Parameter(torch.zeros(1))]).defaults["lr"] == 1.0
    with pytest.raises(RecipeError, match=r"optimizer\.lrr: unknown key of SGD; did you mean 'lr'"):
        build({"class_path": "torch.optim.SGD", "init_args": {"lrr": 1}}, factory, "optimizer")
    with pytest.raises(RecipeError, match=r"optimizer\.class_path: got"):
        build({"class_path": f"{HERE}.Net"}, factory, "optimizer", allow=ALLOW)


def test_mel_by_preset_or_by_value():
    hifigan = MelSpec.preset("hifigan")
    assert build("hifigan", MelSpec, "mel") == hifigan
    assert build(hifigan.to_dict(), MelSpec, "mel") == hifigan
    assert build({"preset": "hifigan", "fmax": 7600}, MelSpec, "mel").fmax == 7600.0
    for node, words in [
        ("hifigann", "mel: mel preset 'hifigann'"),
        ({"preset": "hifigan", "fmx": 1}, "mel.fmx: unknown"),
        ({"preset": "hifigan", "fmax": 99999}, "mel: mel fmax: got 99999 Hz"),
        ({"sample_rate": 22050}, "mel.n_fft: missing"),
    ]:
        with pytest.raises(RecipeError) as error:
            build(node, MelSpec, "mel")
        assert words in str(error.value)


def test_describe_teaches_every_key():
    helped = {h.key: h for h in describe(parse_yaml(GOOD, "x"), Training, allow=ALLOW)}
    assert helped["net"].help == "the generator."
    assert (helped["net.width"].type, helped["net.width"].default) == ("a whole number", "8")
    assert helped["net.width"].help == "channels of every layer."
    assert helped["net.rates"].help == helped["net.dilations"].help == "two at once."
    assert helped["net.mode"].type == "one of 'zero', 'reflect'"
    assert helped["entries.a.weight"].default == "0.0001"
    assert helped["entries.b.net.depth"].default == "2"
    assert helped["steps"].default == "20"
    assert helped["ema"].default == "null"
