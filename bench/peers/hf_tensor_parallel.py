"""Times a prompt phase in Hugging Face transformers' tensor parallelism, for comparison with `runahead bench`.

    torchrun --nproc-per-node 4 bench/peers/hf_tensor_parallel.py MODEL_DIR --contexts 4096,16384

MODEL_DIR is a folder with weights (`runahead make-model` writes one). Prints one line for each context: the median, the
fastest and the slowest time to the first token's id, the slowest rank's of each run.
"""

import os
import time

import torch
import torch.distributed as dist
from transformers import AutoConfig, AutoModelForCausalLM

from results import DTYPES, Results, common_options


def main():
    options = common_options(__doc__).parse_args()

    rank, ranks = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
    torch.cuda.set_device(device)
    dist.init_process_group("nccl", device_id=device)
    vocab = AutoConfig.from_pretrained(options.model).vocab_size
    model = AutoModelForCausalLM.from_pretrained(options.model, dtype=DTYPES[options.dtype], tp_plan="auto",
                                                 attn_implementation="sdpa").eval()
    results = Results("transformers TP", options.model, options.dtype, torch.cuda.get_device_name(device), ranks,
                      options.json if rank == 0 else None)
    for context in map(int, options.contexts.split(",")):
        tokens = torch.randint(vocab, (1, context), generator=torch.Generator().manual_seed(2)).to(device)
        times = []
        for repeat in range(options.repeats + 2):
            torch.cuda.synchronize()
            dist.barrier()
            begin = time.perf_counter()
            with torch.inference_mode():
                logits = model(input_ids=tokens, use_cache=True, logits_to_keep=1).logits
                logits[0, -1].argmax().item()
            torch.cuda.synchronize()
            ms = torch.tensor((time.perf_counter() - begin) * 1e3, device=device)
            dist.all_reduce(ms, op=dist.ReduceOp.MAX)
            if repeat >= 2:
                times.append(ms.item())
        if rank == 0:
            results.add(context, times)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
