"""Times a prompt phase in Hugging Face transformers with SDPA, for comparison with `runahead bench` on the same GPU.

    python3 bench/peers/hf_transformers.py MODEL_DIR --contexts 4096,16384 [--dtype bf16] [--repeats 10]

MODEL_DIR needs its config.json only: the weights are random, drawn on the GPU, since their values do not change the
time. Prints one line for each context: the median, the fastest and the slowest time to the first token's logits.
"""

import argparse
import time

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from results import Results

DTYPES = {"bf16": torch.bfloat16, "f16": torch.float16, "f32": torch.float32}


def prefill_ms(model, tokens):
    """Milliseconds from the ids to the first token's id on the host, with a cache that decoding could go on with."""
    torch.cuda.synchronize()
    begin = time.perf_counter()
    with torch.inference_mode():
        logits = model(input_ids=tokens, use_cache=True, logits_to_keep=1).logits
        logits[0, -1].argmax().item()
    return (time.perf_counter() - begin) * 1e3


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--contexts", default="4096,16384")
    parser.add_argument("--dtype", default="bf16", choices=DTYPES)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--json", help="write all times")
    options = parser.parse_args()

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
