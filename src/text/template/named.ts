/** Chat templates by name, for models that have none: written after their public descriptions. */
export const namedTemplates: Readonly<Record<string, string>> = {
  chatml: `{%- for message in messages %}
    {{- '<|im_start|>' + message['role'] + '\\n' }}
    {%- if message['role'] == 'assistant' %}
        {%- generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}
    {%- else %}
        {{- message['content'] + '<|im_end|>' }}
    {%- endif %}
    {{- '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}`,
  'llama-3': `{{- bos_token }}
{%- for message in messages %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}
    {%- if message['role'] == 'assistant' %}
        {%- generation %}{{ message['content'] | trim + '<|eot_id|>' }}{% endgeneration %}
    {%- else %}
        {{- message['content'] | trim + '<|eot_id|>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}`,
  gemma: `{{- bos_token }}
{%- set ns = namespace(system='') %}
{%- for message in messages %}
    {%- if message['role'] == 'system' %}
        {%- set ns.system = message['content'] | trim + '\\n\\n' %}
    {%- elif message['role'] == 'assistant' %}
        {{- '<start_of_turn>model\\n' }}
        {%- generation %}{{ message['content'] | trim + '<end_of_turn>' }}{% endgeneration %}
        {{- '\\n' }}
    {%- else %}
        {{- '<start_of_turn>' + message['role'] + '\\n' + ns.system + message['content'] | trim + '<end_of_turn>\\n' }}
        {%- set ns.system = '' %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<start_of_turn>model\\n' }}
{%- endif %}`,
  mistral: `{{- bos_token }}
{%- set ns = namespace(system='') %}
{%- for message in messages %}
    {%- if message['role'] == 'system' %}
        {%- set ns.system = message['content'] + '\\n\\n' %}
    {%- elif message['role'] == 'user' %}
        {{- '[INST] ' + ns.system + message['content'] + ' [/INST]' }}
        {%- set ns.system = '' %}
    {%- elif message['role'] == 'assistant' %}
        {%- generation %}{{ ' ' + message['content'] | trim + eos_token }}{% endgeneration %}
    {%- else %}
        {{- raise_exception('only system, user and assistant speak') }}
    {%- endif %}
{%- endfor %}`,
  zephyr: `{%- for message in messages %}
    {{- '<|' + message['role'] + '|>\\n' }}
    {%- if message['role'] == 'assistant' %}
        {%- generation %}{{ message['content'] + eos_token }}{% endgeneration %}
    {%- else %}
        {{- message['content'] + eos_token }}
    {%- endif %}
    {{- '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|assistant|>\\n' }}
{%- endif %}`,
  alpaca: `{{- bos_token }}
{%- for message in messages %}
    {%- if message['role'] == 'system' %}
        {{- message['content'] + '\\n\\n' }}
    {%- elif message['role'] == 'user' %}
        {{- '### Instruction:\\n' + message['content'] + '\\n\\n### Response:\\n' }}
    {%- elif message['role'] == 'assistant' %}
        {%- generation %}{{ message['content'] + eos_token }}{% endgeneration %}
        {%- if not loop.last %}{{ '\\n\\n' }}{% endif %}
    {%- else %}
        {{- raise_exception('only system, user and assistant speak') }}
    {%- endif %}
{%- endfor %}`,
}

/** Tokens that a template needs: without them it would be read as mere letters, and its ends never learned. */
export const neededTokens: Readonly<Record<string, readonly string[]>> = {
  chatml: ['<|im_start|>', '<|im_end|>'],
  'llama-3': ['<|start_header_id|>', '<|end_header_id|>', '<|eot_id|>'],
  gemma: ['<start_of_turn>', '<end_of_turn>'],
}
