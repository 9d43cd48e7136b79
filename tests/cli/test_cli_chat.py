"""`unidpo-mm chat`: conversations with tiny models, on the real command line."""

import dataclasses
import json
import os
import pty
import shutil
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import make_clip, make_image, write_video
from support.forked import Finished, run_forked
from support.forked_runs import preload, unidpo_mm
from typer.testing import CliRunner

from unidpo_mm.cli.chat_terminal import ChatTerminal
from unidpo_mm.cli.main import build_app
from unidpo_mm.errors import CONTROL, UniDPOError
from unidpo_mm.inference.chat import ChatOptions, open_chat
from unidpo_mm.inference.decoding import Decoding

Checkpoint = Callable[[str], Path]
SHORT = ("--max-new-tokens", "8", "--dtype", "float32")


def chat(*arguments: Any, text: str | None = None) -> tuple[int, str, str]:
    """Return exit code, standard output and standard error of a call in this process."""
    words = ["chat", *map(str, arguments)]
    result = CliRunner().invoke(build_app(words), words, input=text)
    if isinstance(result.exception, UniDPOError):
        return result.exception.exit_code, result.stdout, str(result.exception)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def in_terminal(
    *arguments: Any, lines: Sequence[str], before: Callable[[], None] | None = None
) -> Finished:
    """Run the command in a process whose standard input is a terminal."""
    preload()

    def run() -> None:
        master, terminal = pty.openpty()
        os.write(master, "".join(f"{line}\n" for line in lines).encode() + b"\x04")
        os.dup2(terminal, 0)
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - for the whole command
        if before is not None:
            before()
        unidpo_mm("chat", *map(str, arguments))()

    return run_forked(run)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("images") / "a.png"
    make_image(1).save(path)
    return path


@pytest.fixture(scope="module")
def lora(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory of a LoRA adapter that changes the responses of the tiny text model."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model: Any = get_peft_model(
        AutoModelForCausalLM.from_pretrained(checkpoint("llama")),
        LoraConfig(r=4, target_modules=["q_proj", "v_proj", "down_proj"]),
    )
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    folder = tmp_path_factory.mktemp("lora")
    model.save_pretrained(folder)
    return folder


def generated(
    folder: Path, messages: list[dict[str, Any]], images: Sequence[Path] = (), *, lora: Any = None
) -> str:
    """Return the greedy response that transformers generates, without any code of the project."""
    import transformers
    from PIL import Image

    processor: Any = transformers.AutoProcessor.from_pretrained(folder)
    has_images = hasattr(processor, "image_processor")
    name = "AutoModelForImageTextToText" if has_images else "AutoModelForCausalLM"
    model: Any = getattr(transformers, name).from_pretrained(folder, dtype=torch.float32)
    if lora is not None:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, lora)
    prompt = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    if has_images:
        opened = [Image.open(path).convert("RGB") for path in images] or None
        inputs = processor(text=prompt, images=opened, return_tensors="pt")
        bos = processor.tokenizer.bos_token
    else:
        inputs, bos = processor(prompt, return_tensors="pt", add_special_tokens=False), None
    assert bos is None or prompt.startswith(bos)
    ids = model.generate(**inputs, max_new_tokens=8, do_sample=False)[0]
    new = ids[inputs["input_ids"].shape[1] :]
    tokenizer = getattr(processor, "tokenizer", processor)
    return str(tokenizer.decode(new, skip_special_tokens=True)).strip()


def says(role: str, text: str, images: int = 0, *, parts: bool = False) -> dict[str, Any]:
    if not parts:
        return {"role": role, "content": text}
    content = [{"type": "image"}] * images + [{"type": "text", "text": text}]
    return {"role": role, "content": content}


def test_a_prompt_gets_the_response_of_transformers(checkpoint: Checkpoint) -> None:
    expected = generated(checkpoint("llama"), [says("user", "Write one word.")])
    code, output, _ = chat(checkpoint("llama"), "--prompt", "Write one word.", *SHORT)
    assert (code, output) == (0, f"{expected}\n")
    assert chat(checkpoint("llama"), *SHORT, text="Write one word.\n")[1] == f"{expected}\n"


def test_the_system_message_is_rendered(checkpoint: Checkpoint) -> None:
    messages = [says("system", "Two images"), says("user", "What?")]
    expected = generated(checkpoint("llama"), messages)
    words = ("--prompt", "What?", "--system", "Two images", *SHORT)
    assert chat(checkpoint("llama"), *words)[1] == f"{expected}\n"
    assert expected != generated(checkpoint("llama"), messages[1:])


@pytest.mark.parametrize("model_type", ["llava", "qwen2_vl"])
def test_images_reach_the_model(checkpoint: Checkpoint, image: Path, model_type: str) -> None:
    folder = checkpoint(model_type)
    messages = [says("user", "What is it?", images=1, parts=True)]
    expected = generated(folder, messages, [image])
    code, output, _ = chat(folder, "--image", image, "--prompt", "What is it?", *SHORT)
    assert (code, output) == (0, f"{expected}\n")
    two = chat(folder, "--image", image, "--image", image, "--prompt", "What is it?", *SHORT)
    messages = [says("user", "What is it?", images=2, parts=True)]
    assert two[1] == f"{generated(folder, messages, [image, image])}\n"


def test_a_lora_adapter_and_the_model_before_it(checkpoint: Checkpoint, lora: Path) -> None:
    before = generated(checkpoint("llama"), [says("user", "Hello?")])
    after = generated(checkpoint("llama"), [says("user", "Hello?")], lora=lora)
    assert before != after
    assert chat(lora, "--prompt", "Hello?", *SHORT)[1] == f"{after}\n"
    expected = f"[{checkpoint('llama').name}]\n{before}\n\n[{lora.name}]\n{after}\n"
    assert chat(lora, "--before", "--prompt", "Hello?", *SHORT)[1] == expected
    compared = chat(lora, "--compare", checkpoint("llama"), "--prompt", "Hello?", *SHORT)
    assert compared[1] == expected


def test_the_base_model_of_a_lora_adapter_shares_its_weights(
    checkpoint: Checkpoint, lora: Path
) -> None:
    base, tuned = open_chat(str(lora), ChatOptions(), compare=str(checkpoint("llama")))
    assert base.conversation.model.model._model is tuned.conversation.model.model
    other, _ = open_chat(str(lora), ChatOptions(), compare=str(checkpoint("qwen3")))
    assert not hasattr(other.conversation.model.model, "_model")


def test_random_responses_follow_the_seed(checkpoint: Checkpoint) -> None:
    def response(seed: int, *words: str) -> str:
        options = ("--temperature", "1.5", "--seed", str(seed), *words)
        return chat(checkpoint("llama"), "--prompt", "Hello?", *SHORT, *options)[1]

    assert response(0) == response(0)
    assert len({response(seed) for seed in range(4)}) > 1
    greedy = chat(checkpoint("llama"), "--prompt", "Hello?", *SHORT)[1]
    assert response(0, "--top-p", "1e-6") == greedy


def test_a_run_lends_its_options(checkpoint: Checkpoint, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(checkpoint("llama"), folder)
    template = folder / "chat_template.jinja"
    template.write_text(template.read_text() + "{% if quiet %}Two. {% endif %}")
    plain = chat(folder, "--prompt", "Hello?", *SHORT)[1]
    quiet = chat(folder, "--prompt", "Hello?", "--chat-template-kwargs", "quiet=true", *SHORT)[1]
    assert plain != quiet
    (folder / "run.json").write_text("{}")
    recipe = {
        "model": {
            "name_or_path": str(checkpoint("qwen3")),
            "prompt_style": "auto",
            "chat_template_kwargs": {"quiet": True},
        }
    }
    (folder / "recipe.yaml").write_text(json.dumps(recipe))
    assert chat(folder, "--prompt", "Hello?", *SHORT)[1] == quiet
    off = ("--chat-template-kwargs", "quiet=false")
    assert chat(folder, "--prompt", "Hello?", *off, *SHORT)[1] == plain
    before = chat(folder, "--before", "--prompt", "Hello?", *SHORT)[1]
    assert before.startswith(f"[{checkpoint('qwen3').name}]\n")
    assert before.endswith(f"\n\n[run]\n{quiet}")
    last = folder / "checkpoint-3"
    shutil.copytree(checkpoint("llama"), last)
    shutil.copy(template, last)
    assert chat(last, "--prompt", "Hello?", *SHORT)[1] == quiet
    (folder / "recipe.yaml").write_text("model: [")
    assert "the recipe of the run cannot be read" in chat(folder, "--prompt", "Hello?")[2]


def test_a_model_without_template_continues_text(checkpoint: Checkpoint, tmp_path: Path) -> None:
    folder = tmp_path / "plain"
    shutil.copytree(checkpoint("llama"), folder)
    (folder / "chat_template.jinja").unlink()
    raw = chat(checkpoint("llama"), "--prompt", "Hello?", "--style", "raw", *SHORT)
    assert chat(folder, "--prompt", "Hello?", *SHORT)[1] == raw[1]
    code, _, error = chat(folder, "--prompt", "Hello?", "--system", "Two.")
    assert code == 2
    assert "--system: the prompts of 'plain' do not use a chat template" in error


def test_a_conversation_in_a_terminal(checkpoint: Checkpoint, image: Path) -> None:
    folder = checkpoint("llava")
    history = [says("user", "What is it?", images=1, parts=True)]
    replies = [generated(folder, history, [image])]
    history += [says("assistant", replies[0], parts=True), says("user", "How many?", parts=True)]
    replies.append(generated(folder, history, [image]))
    system = says("system", "Two circle", parts=True)
    again = [says("user", "What is it?", images=1, parts=True)]
    replies.append(generated(folder, [system, *again], [image]))
    lines = ["What is it?", "How many?", "/reset", "/system Two circle", f"/image '{image}'"]
    done = in_terminal(folder, "--image", image, *SHORT, lines=[*lines, "What is it?", "", "/help"])
    assert done.code == 0, done.output
    printed = [CONTROL.sub("", reply) for reply in replies]
    expected = f"> {printed[0]}\n> {printed[1]}\n> > > > {printed[2]}\n> > > \n"
    assert [line.rstrip() for line in done.stdout.splitlines()] == [
        line.rstrip() for line in expected.splitlines()
    ]
    for note in (
        "llava0 (llava, float32, cpu)",
        "1 image will be sent with the next message",
        "the conversation is empty",
        "stopped after 8 tokens",
        "Ctrl-C stops a response",
    ):
        assert note in done.stderr


def test_mistakes_do_not_end_a_conversation(checkpoint: Checkpoint, image: Path) -> None:
    mistakes = [f"/image {image}", "/image b.png", "/imge", "/system"]
    lines = [*mistakes, "Hello?", "/exit now", "Hello?"]
    done = in_terminal(checkpoint("llama"), *SHORT, lines=lines)
    assert done.code == 0, done.output
    assert "Traceback" not in done.output
    assert f"/image: '{checkpoint('llama').name}' is a text model" in done.stderr
    assert "/image: the image 'b.png' does not exist" in done.stderr
    assert "/imge: unknown command, did you mean '/image'?" in done.stderr
    assert "no system message" in done.stderr
    reply = generated(checkpoint("llama"), [says("user", "Hello?")])
    assert done.stdout.rstrip("\n> ").endswith(CONTROL.sub("", reply))


def test_a_line_that_starts_with_a_space_is_a_message(checkpoint: Checkpoint) -> None:
    done = in_terminal(checkpoint("llama"), *SHORT, lines=[" /exit"])
    assert done.code == 0, done.output
    reply = generated(checkpoint("llama"), [says("user", "/exit")])
    assert CONTROL.sub("", reply) in done.stdout


def test_a_system_message_is_set_for_all_models_or_for_none(checkpoint: Checkpoint) -> None:
    models = open_chat(str(checkpoint("llama")), ChatOptions(), compare=str(checkpoint("qwen3")))
    models[1].conversation.style = "raw"
    terminal = ChatTerminal(models, [], [], None, None)
    with pytest.raises(UniDPOError, match="do not use a chat template"):
        terminal._handle("/system Two images")
    assert [model.conversation.system for model in models] == ["", ""]


def test_an_interrupt_stops_the_response_only(checkpoint: Checkpoint) -> None:
    def interrupt_third_token() -> None:
        from transformers import TextStreamer

        put, calls = TextStreamer.put, []

        def interrupting(self: Any, value: Any) -> None:
            calls.append(value)
            put(self, value)
            if len(calls) == 4:  # the first call has the prompt
                os.kill(os.getpid(), signal.SIGINT)

        TextStreamer.put = interrupting  # type: ignore[method-assign] # in a forked process

    lines = ["Hello?", "What?"]
    done = in_terminal(checkpoint("llama"), *SHORT, lines=lines, before=interrupt_third_token)
    assert done.code == 0, done.output
    notes = [line for line in done.stderr.splitlines() if line.startswith("stopped")]
    assert notes[0] == "stopped"
    assert notes[1].startswith("stopped after 8 tokens")


def test_an_interrupt_before_the_first_token_keeps_the_conversation(checkpoint: Checkpoint) -> None:
    def interrupt_first_prompt() -> None:
        from unidpo_mm.inference.conversation import Conversation

        encode, calls = Conversation._encode, []

        def interrupting(self: Conversation, turns: Any) -> Any:
            calls.append(turns)
            if len(calls) == 1:
                os.kill(os.getpid(), signal.SIGINT)
            return encode(self, turns)

        Conversation._encode = interrupting  # type: ignore[method-assign] # in a forked process

    lines = ["Two?", "Hello?"]
    done = in_terminal(checkpoint("llama"), *SHORT, lines=lines, before=interrupt_first_prompt)
    assert done.code == 0, done.output
    assert "stopped\n" in done.stderr
    reply = CONTROL.sub("", generated(checkpoint("llama"), [says("user", "Hello?")]))
    assert done.stdout.rstrip("\n> ") == f"> > {reply}".rstrip()


def test_a_long_history_loses_its_oldest_messages(checkpoint: Checkpoint) -> None:
    (model,) = open_chat(str(checkpoint("llama")), ChatOptions(dtype="float32"))
    conversation = dataclasses.replace(model.conversation, max_length=100, system="Two images")
    conversation.model = dataclasses.replace(
        conversation.model, decoding=Decoding(max_new_tokens=10)
    )
    dropped = []
    for number in range(6):
        reply = conversation.respond(f"What is {number}?", write=lambda piece: None)
        dropped.append(reply.dropped)
        prompt = conversation._encode(conversation._turns)
        assert prompt.prompt_ids.numel() <= 100 + 10
    assert dropped[0] == 0
    assert any(dropped)
    assert all(number % 2 == 0 for number in dropped)
    kept = conversation._turns
    assert kept[0].message.role == "user"
    assert len(kept) < 12
    with pytest.raises(UniDPOError, match=r"exceeds the maximum length of '.*', 100 tokens"):
        conversation.respond("How many? " * 60, write=lambda piece: None)
    assert conversation._turns == kept
    conversation.max_length = 40
    conversation.system = ""
    reply = conversation.respond("What is it?", write=lambda piece: None)
    assert reply.max_new_tokens < 40


def damaged(source: Path, folder: Path, change: Callable[[Path], Any]) -> Path:
    shutil.copytree(source, folder)
    change(folder)
    return folder


def cut_weights(folder: Path) -> None:
    weights = next(folder.glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1000])


def lose_a_tensor(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    path = folder / "model.safetensors"
    weights = load_file(path)
    del weights["lm_head.weight"]
    save_file(weights, path, metadata={"format": "pt"})


def change_sizes(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "intermediate_size": 48}))


def test_a_video_reaches_the_model(checkpoint: Checkpoint, tmp_path: Path) -> None:
    folder = checkpoint("qwen2_5_vl")
    outputs = []
    for number in range(2):
        frames = make_clip(1, 12) if number == 0 else make_clip(90, 12)
        clip = write_video(tmp_path / f"{number}.mp4", frames)
        code, output, _ = chat(folder, "--video", clip, "--prompt", "What?", *SHORT)
        assert code == 0
        outputs.append(output)
    assert outputs[0] != outputs[1]
    code, _, error = chat(folder, "--video", tmp_path / "gone.mp4", "--prompt", "What?", *SHORT)
    assert code == 2
    assert "gone.mp4' does not exist" in error
    clip = tmp_path / "0.mp4"
    code, _, error = chat(checkpoint("llama"), "--video", clip, "--prompt", "What?", *SHORT)
    assert code == 2
    assert "remove the video" in error


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (cut_weights, "incomplete metadata"),
        (lose_a_tensor, "1 tensor is missing, such as lm_head.weight"),
        (change_sizes, "cannot be loaded"),
        (lambda folder: (folder / "config.json").write_text("{"), "not a valid JSON file"),
        (lambda folder: (folder / "tokenizer.json").write_text("{"), "cannot be loaded"),
        (lambda folder: (folder / "config.json").unlink(), "neither config.json nor"),
    ],
)
def test_a_damaged_checkpoint_is_refused(
    checkpoint: Checkpoint, tmp_path: Path, change: Callable[[Path], Any], expected: str
) -> None:
    folder = damaged(checkpoint("llama"), tmp_path / "damaged", change)
    code, output, error = chat(folder, "--prompt", "Hello?")
    assert (code, output) == (2, "")
    assert str(folder) in error
    assert expected in error
    assert "model.name_or_path" not in error


def test_damaged_lora_adapters_are_refused(lora: Path, tmp_path: Path) -> None:
    folder = damaged(lora, tmp_path / "cut", cut_weights)
    assert "the adapter does not fit its base model" in chat(folder, "--prompt", "Hello?")[2]
    config = json.loads((lora / "adapter_config.json").read_text())
    text = json.dumps({**config, "base_model_name_or_path": "/absent/base"})
    folder = damaged(
        lora, tmp_path / "absent", lambda f: (f / "adapter_config.json").write_text(text)
    )
    code, _, error = chat(folder, "--prompt", "Hello?")
    assert code == 2
    assert "the base model '/absent/base'" in error


def test_wrong_arguments_are_refused(checkpoint: Checkpoint, image: Path, tmp_path: Path) -> None:
    folder = checkpoint("llama")
    (tmp_path / "checkpoint-9").mkdir()
    (tmp_path / "checkpoint-10").mkdir()
    broken = tmp_path / "broken.png"
    broken.write_bytes(image.read_bytes()[:60])
    for words, expected in (
        ((tmp_path / "absent",), "Use an existing directory"),
        ((image,), "is a file. Use the directory that contains it"),
        ((tmp_path,), f"Use one of its checkpoints, for example {tmp_path / 'checkpoint-10'}"),
        ((folder, "--image", image), "is a text model, which has no vision tower"),
        ((checkpoint("llava"), "--image", tmp_path / "b.png"), "does not exist"),
        ((checkpoint("llava"), "--image", broken), "--image: the image"),
        ((folder, "--device", "abacus"), "'abacus' is not a device"),
        ((folder, "--device", "cuda:99"), "this machine has no device 'cuda:99'"),
        ((folder, "--before"), "does not record which model its training started from"),
        ((folder, "--compare", tmp_path / "absent"), "Use an existing directory"),
        ((folder, "--chat-template-kwargs", "quiet"), "cannot parse 'quiet'"),
        ((tmp_path / "absent", "--style", "loud"), "'loud' is not one of"),
        ((folder, "--style", "raw", "--chat-template-kwargs", "a=1"), "do not use a chat"),
    ):
        code, output, error = chat(*words, "--prompt", "Hello?")
        assert (code, output) == (2, ""), words
        assert expected in error, words
    for words in (("--temperature", "nan"), ("--top-p", "0"), ("--before", "--compare", "x")):
        assert chat(folder, "--prompt", "Hello?", *words)[0] == 2, words
    assert "the prompt is empty" in chat(folder, "--prompt", " ")[2]
    assert "the prompt is empty" in chat(folder, text="")[2]
    assert "not valid UTF-8" in chat(folder, "--prompt", "word\udce9")[2]


def test_a_template_may_refuse_several_images(
    checkpoint: Checkpoint, image: Path, tmp_path: Path
) -> None:
    def refuse(folder: Path) -> None:
        template = folder / "chat_template.jinja"
        check = "{% if messages[0]['content'] | length > 2 %}"
        check += "{{ raise_exception('one image per message') }}{% endif %}"
        template.write_text(check + template.read_text())

    folder = damaged(checkpoint("llava"), tmp_path / "single", refuse)
    images = ("--image", image, "--image", image)
    code, _, error = chat(folder, *images, "--prompt", "What?", *SHORT)
    assert code == 2
    assert "the model's chat template refuses the row: one image per message" in error


def test_the_command_line_prints_only_the_response(checkpoint: Checkpoint) -> None:
    preload()
    words = ("chat", str(checkpoint("llama")), "--prompt", "Hello?", *SHORT)
    done = run_forked(unidpo_mm(*words))
    expected = generated(checkpoint("llama"), [says("user", "Hello?")])
    assert (done.code, done.stdout) == (0, f"{expected}\n")
    done = run_forked(unidpo_mm("chat", "absent", "--prompt", "Hello?"))
    assert (done.code, done.stdout) == (2, "")
    assert done.stderr.startswith("error: checkpoint 'absent'")
    assert "Traceback" not in done.stderr
