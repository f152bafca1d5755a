import copy

import pytest
import torch

from helpers.small_network import small_net
from helpers.targets import make_target
from ssd_lightning.errors import ConfigurationError
from ssd_lightning.losses import MultiBoxLoss
from ssd_lightning.training.compilation import check_compile, compile_network

SIZE = 32
CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.fixture(autouse=True)
def fresh_dynamo():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.mark.parametrize(("mode", "steps"), [("default", 0), ("reduce-overhead", 1), (None, 0)])
def test_the_parts_that_compute_are_compiled(mode: str | None, steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    net, asked, begun = small_net(), [], []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **settings: asked.append((self, settings)))
    monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", lambda: begun.append(1))
    compile_network(net, mode)
    assert asked == [(part, {"mode": mode}) for part in (net.extractor, net.head) if mode]
    net(torch.zeros(1, 3, SIZE, SIZE))
    assert len(begun) == steps  # CUDA graphs have to know


@pytest.mark.slow
def test_compiled_steps_give_the_same_losses_gradients_and_names() -> None:
    plain = small_net().double()  # in single precision, rounding puts some value on the other side of a ReLU's 0
    compiled = copy.deepcopy(plain)
    check_compile("default", CPU)
    compile_network(compiled, "default")
    assert compiled.state_dict().keys() == plain.state_dict().keys()
    loss, box = MultiBoxLoss(), torch.tensor([[0.1, 0.1, 0.6, 0.6]])
    for count in (4, 2):  # a last batch may be smaller
        images = torch.randint(0, 256, (count, 3, SIZE, SIZE)).double()
        targets = [make_target(box, torch.tensor([1 + index % 2])) for index in range(count)]
        results = []
        for net in (plain, compiled):
            net.zero_grad()
            losses = loss(net(images), targets)
            sum(losses.values()).backward()
            results.append((losses, {name: parameter.grad for name, parameter in net.named_parameters()}))
        torch.testing.assert_close(results[1], results[0], rtol=1e-6, atol=1e-6)
    with torch.no_grad():
        torch.testing.assert_close(compiled.eval()(images), plain.eval()(images), rtol=1e-6, atol=1e-6)
    again = copy.deepcopy(compiled)  # as a moving average does
    assert again.state_dict().keys() == plain.state_dict().keys()
    torch.testing.assert_close(again.eval()(images), plain(images))


def test_a_machine_without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch._inductor.config as inductor

    monkeypatch.setattr(inductor.cpp, "cxx", ("no-such-compiler",))
    with pytest.raises(ConfigurationError, match=r"compile=default needs a C\+\+ compiler"):
        check_compile("default", CPU)


def test_a_gpu_machine_without_triton_or_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch.utils._triton

    monkeypatch.setattr(torch.utils._triton, "has_triton", lambda: False)
    with pytest.raises(ConfigurationError, match="compile=default needs triton"):
        check_compile("default", GPU)
    monkeypatch.setattr(torch.utils._triton, "has_triton", lambda: True)
    check_compile("default", GPU)
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CC", raising=False)
    with pytest.raises(ConfigurationError, match="compile=default needs a C compiler"):
        check_compile("default", GPU)


def test_compiled_code_is_for_images_of_one_size() -> None:
    with pytest.raises(ConfigurationError, match=r"compile=default compiles for images of one size, and data\.multis"):
        check_compile("default", CPU, many_sizes=True)
    check_compile(None, CPU, many_sizes=True)
