"""Weights of saved models in the packed forms of AWQ, GPTQ and compressed-tensors, for make_goldens.py.

Each packer takes a matrix of [out, in] and gives the tensors of the form, and in float32 the numbers that these stand
for by the form's own formula. compressed-tensors decompresses its three to the same.
"""
import json

import torch
from safetensors.torch import load_file, save_file

AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)  # which of eight neighbours lies in each nibble of a word, the lowest first


def words(codes, bits, order=None):
    """[rows, n] codes as [rows, ceil(n / (32 / bits))] words of int32."""
    per_word = 32 // bits
    codes = torch.nn.functional.pad(codes.long(), (0, -codes.shape[1] % per_word)).unflatten(1, (-1, per_word))
    order = order or range(per_word)
    packed = sum(codes[:, :, source] << (bits * place) for place, source in enumerate(order))
    return torch.where(packed >= 2**31, packed - 2**32, packed).to(torch.int32)


def quantise(weight, bits, group_of, symmetric):
    """Codes [out, in], scales (of float16) and zero points [out, groups], and the numbers that they stand for."""
    groups = int(group_of.max()) + 1
    top = 2**bits - 1
    scales = torch.empty(weight.shape[0], groups)
    zeros = torch.full((weight.shape[0], groups), 2 ** (bits - 1))
    for group in range(groups):
        own = weight[:, group_of == group]
        if symmetric:
            scales[:, group] = own.abs().amax(1) / (2 ** (bits - 1) - 1)
        else:
            low, high = own.amin(1).clamp(max=0), own.amax(1).clamp(min=0)
            scales[:, group] = (high - low) / top
            zeros[:, group] = (-low / scales[:, group]).round().clamp(1, top)
    scales = scales.half().float()
    codes = (weight / scales[:, group_of] + zeros[:, group_of]).round().clamp(0, top).long()
    return codes, scales, zeros, (codes - zeros[:, group_of]).float() * scales[:, group_of]


def awq(name, weight, group):
    inputs = weight.shape[1]
    codes, scales, zeros, numbers = quantise(weight, 4, torch.arange(inputs) // group, symmetric=False)
    return {f"{name}.qweight": words(codes.T, 4, AWQ_ORDER), f"{name}.qzeros": words(zeros.T, 4, AWQ_ORDER),
            f"{name}.scales": scales.T.half()}, numbers


def gptq(name, weight, group, bits, symmetric, desc_act, version):
    inputs = weight.shape[1]
    group_of = torch.arange(inputs) // (group if group > 0 else inputs)
    if desc_act:
        group_of = group_of[torch.randperm(inputs, generator=torch.Generator().manual_seed(inputs))]
    codes, scales, zeros, numbers = quantise(weight, bits, group_of, symmetric)
    stored = zeros - 1 if version == 1 else zeros
    tensors = {f"{name}.qweight": words(codes, bits).T, f"{name}.qzeros": words(stored.T, bits),
               f"{name}.scales": scales.T.half()}
    return tensors | ({f"{name}.g_idx": group_of.int()} if desc_act else {}), numbers


def pack_quantized(name, weight, group, bits, symmetric):
    inputs = weight.shape[1]
    group_of = torch.arange(inputs) // (group if group > 0 else inputs)
    codes, scales, zeros, numbers = quantise(weight, bits, group_of, symmetric)
    tensors = {f"{name}.weight_packed": words(codes, bits), f"{name}.weight_scale": scales.bfloat16(),
               f"{name}.weight_shape": torch.tensor(weight.shape)}
    scales = scales.bfloat16().float()
    numbers = (codes - zeros[:, group_of]).float() * scales[:, group_of]
    return tensors | ({} if symmetric else {f"{name}.weight_zero_point": words(zeros.T, bits).T}), numbers


def int_quantized(name, weight):
    codes, scales, zeros, numbers = quantise(weight, 8, torch.zeros(weight.shape[1], dtype=torch.long), True)
    return {f"{name}.weight": (codes - zeros).to(torch.int8), f"{name}.weight_scale": scales}, numbers


def compressed(form, **weights):
    return {"quant_method": "compressed-tensors", "format": form, "ignore": ["lm_head"], "config_groups": {
        "group_0": {"targets": ["Linear"], "weights": {"type": "int", **weights}}}}


# name: (packer, quantization_config)
FORMS = {
    "awq": (lambda name, weight: awq(name, weight, 32),
            {"quant_method": "awq", "bits": 4, "group_size": 32, "version": "gemm", "zero_point": True,
             "modules_to_not_convert": ["o_proj"]}),
    "gptq": (lambda name, weight: gptq(name, weight, 32, 4, True, False, 1),
             {"quant_method": "gptq", "bits": 4, "group_size": 32, "desc_act": False, "sym": True}),
    "gptq_desc_act": (lambda name, weight: gptq(name, weight, 32, 8, False, True, 2),
                      {"quant_method": "gptq", "bits": 8, "group_size": 32, "desc_act": True, "sym": False,
                       "checkpoint_format": "gptq_v2"}),
    "pack_quantized": (lambda name, weight: pack_quantized(name, weight, 16, 4, False),
                       compressed("pack-quantized", num_bits=4, strategy="group", group_size=16, symmetric=False)),
    "pack_quantized_int8": (lambda name, weight: pack_quantized(name, weight, -1, 8, True),
                            compressed("pack-quantized", num_bits=8, strategy="channel", symmetric=True)),
    "int_quantized": (int_quantized, compressed("int-quantized", num_bits=8, strategy="channel", symmetric=True)),
}


def pack(directory, form):
    """Rounds the linear layers of a saved model to what `form` holds; calling the result packs them."""
    packer, quantization = FORMS[form]
    path = directory / "model.safetensors"
    tensors = load_file(path)
    packed = {}
    for name in list(tensors):
        plain = any(f".{module}." in name for module in quantization.get("modules_to_not_convert", []))
        if name.endswith("_proj.weight") and not plain:
            stored, tensors[name] = packer(name.removesuffix(".weight"), tensors[name].float())
            packed.update({key: value.contiguous() for key, value in stored.items()})
        elif name not in packed:
            packed[name] = tensors[name]
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, metadata={"format": "pt"})

    def write():
        save_file(packed, path, metadata={"format": "pt"})
        config = json.loads((directory / "config.json").read_text())
        config["quantization_config"] = quantization
        (directory / "config.json").write_text(json.dumps(config, indent=2) + "\n")

    return write
