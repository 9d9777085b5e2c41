"""Times a prompt phase in Hugging Face transformers with SDPA, for comparison with `runahead bench` on the same GPU.

    python3 bench/peers/hf_transformers.py MODEL_DIR --contexts 4096,16384 [--dtype bf16] [--repeats 10]

MODEL_DIR needs its config.json only: the weights are random, drawn on the GPU, since their values do not change the
time. Prints one line for each context: the median, the fastest and the slowest time to the first token's logits.
"""

import time

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from results import DTYPES, Results, common_options


def prefill_ms(model, tokens):
    """Milliseconds from the ids to the first token's id on the host, with a cache that decoding could go on with."""
    torch.cuda.synchronize()
    begin = time.perf_counter()
    with torch.inference_mode():
        logits = model(input_ids=tokens, use_cache=True, logits_to_keep=1).logits
        logits[0, -1].argmax().item()
    return (time.perf_counter() - begin) * 1e3


def main():
    options = common_options(__doc__).parse_args()

    config = AutoConfig.from_pretrained(options.model)
    config.torch_dtype = DTYPES[options.dtype]
    torch.set_default_dtype(DTYPES[options.dtype])
    with torch.device("cuda"):
        model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").eval()
    results = Results("transformers with SDPA", options.model, options.dtype, torch.cuda.get_device_name(), 1,
                      options.json)
    for context in map(int, options.contexts.split(",")):
        tokens = torch.randint(config.vocab_size, (1, context), device="cuda")
        for _ in range(2):
            prefill_ms(model, tokens)
        times = [prefill_ms(model, tokens) for _ in range(options.repeats)]
        results.add(context, times)


if __name__ == "__main__":
    main()
