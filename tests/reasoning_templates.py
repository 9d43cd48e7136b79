"""Chat templates in the styles of reasoning models, for tests."""

DEEPSEEK_R1 = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}"
    "{{ '<|im_start|>user\n' + m['content'] + '<|im_end|>\n' }}{% elif m['role'] == 'assistant' %}"
    "{{ '<|im_start|>assistant\n' + m['content'].split('</think>')[-1] + '<|im_end|>\n' }}"
    "{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n<think>\n' }}{% endif %}"
)
"""Removes reasoning from assistant turns; the generation prompt opens a block."""

QWEN3 = (
    "{%- for m in messages %}{%- if m.role in ('user', 'system') %}"
    "{{- '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}"
    "{%- elif m.role == 'assistant' %}"
    "{%- set content = m.content %}{%- set reasoning = '' %}"
    "{%- if '</think>' in content %}"
    "{%- set reasoning = content.split('</think>')[0].rstrip('\n').split('<think>')[-1]"
    ".lstrip('\n') %}"
    "{%- set content = content.split('</think>')[-1].lstrip('\n') %}{%- endif %}"
    "{%- if loop.last or reasoning %}"
    "{{- '<|im_start|>assistant\n<think>\n' + reasoning.strip('\n') + '\n</think>\n\n' +"
    " content.lstrip('\n') }}"
    "{%- else %}{{- '<|im_start|>assistant\n' + content }}{%- endif %}"
    "{{- '<|im_end|>\n' }}{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}"
    "{%- if enable_thinking is defined and enable_thinking is false %}"
    "{{- '<think>\n\n</think>\n\n' }}{%- endif %}{%- endif %}"
)
"""Writes a block, possibly empty, before the last response; with thinking off it is part of the
generation prompt."""

QWEN3_THINKING = QWEN3.replace(
    "{%- if enable_thinking is defined and enable_thinking is false %}"
    "{{- '<think>\n\n</think>\n\n' }}{%- endif %}",
    "{{- '<think>\n' }}",
)
"""The same, and the generation prompt always opens a block."""

EMPTY_BLOCK_IN_PROMPT_ALONE = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{% if enable_thinking is defined and not enable_thinking %}{{ '<think>\n\n</think>\n\n' }}"
    "{% endif %}{% endif %}"
)
"""With thinking off, generation prompt and rendered response disagree."""

GLM = (
    "{% for m in messages %}{% if m.role == 'assistant' %}"
    "{{ '<|im_start|>assistant' }}"
    "{% if '</think>' in m.content %}"
    "{{ '\n<think>' + m.content.split('</think>')[0].split('<think>')[-1].strip() + '</think>' }}"
    "{% else %}{{ '\n<think></think>' }}{% endif %}"
    "{{ '\n' + m.content.split('</think>')[-1].strip() }}"
    "{% else %}{{ '<|im_start|>' + m.role + '\n' + m.content }}"
    "{% if enable_thinking is defined and not enable_thinking %}{{ '/nothink' }}{% endif %}"
    "{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant' }}"
    "{{ '\n<think></think>' if (enable_thinking is defined and not enable_thinking) else '' }}"
    "{% endif %}"
)
"""A block before every response, a marker in user turns, and no token at the end of a turn."""

MAGISTRAL = (
    "{% for m in messages %}{% if m['role'] == 'user' %}{{ '[INST]' + m['content'] + '[/INST]' }}"
    "{% elif '[/THINK]' in m['content'] %}{{ m['content'].split('[/THINK]')[1] + eos_token }}"
    "{% else %}{{ m['content'] + eos_token }}{% endif %}{% endfor %}"
)
"""Another tag, which the template removes."""

GEMMA = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
    "{% endif %}{% for m in messages %}"
    "{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}"
    "{% endif %}"
    "{{ '<|im_start|>' + ('model' if m['role'] == 'assistant' else 'user') + '\n' +"
    " m['content'] | trim + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>model\n' }}{% endif %}"
)
"""Refuses system messages and turns that do not alternate, and trims every message."""
