"""Freezes textual inversion on the small SDXL and SD 2 models of make_families.py as sd-scripts does it: family_embedding.safetensors.

    python make_family_embedding.py SD_SCRIPTS_CHECKOUT

sdxl_train_textual_inversion.py and train_textual_inversion.py: new tokens behind the vocabulary of every text encoder, the whole token
tables in one AdamW, all rows but the new ones put back after each step.  Models, inputs and first rows are made from their names
(synthetic.draws).  Cases `ti` (sdxl) and `ti2` (sd2): ids, times, losses of 20 steps, gradients of the first and rows after each.
"""
import torch
from oracle import save, versions

from make_families import VOCAB
from make_family_lora import STEPS, draws, ids, load, scheduler, step

VECTORS, SIZE, RATE = 2, 0.1, 5e-3


def case(out, name, model, v):
    unet, encoders = load(model)
    tables = []
    for e, encoder in enumerate(encoders):
        encoder.resize_token_embeddings(VOCAB + VECTORS, mean_resizing=False)
        table = encoder.get_input_embeddings().requires_grad_(True)
        with torch.no_grad():
            table.weight[VOCAB:] = draws(f"{name}.rows{e}", VECTORS, table.weight.shape[1]) * SIZE
        tables.append(table)
    frozen = [t.weight[:VOCAB].detach().clone() for t in tables]
    lines = ids(1)
    for row in lines:
        row[0, 3:5] = row[1, 6:8] = torch.tensor([VOCAB, VOCAB + 1])
    sched = scheduler(v, False)
    times = torch.randint(0, 1000, (STEPS, 2), generator=torch.Generator().manual_seed(4))
    opt = torch.optim.AdamW([p for t in tables for p in t.parameters()], lr=RATE, betas=(0.9, 0.999), eps=1e-8, weight_decay=1e-2)
    losses, rows = [], [[] for _ in tables]
    for k in range(STEPS):
        opt.zero_grad()
        loss = step(f"{name}.{k}", model, unet, encoders, sched, lines, 1, v, times[k])[1]
        loss.backward()
        if not k:
            out |= {f"{name}.grad{e}": t.weight.grad[VOCAB:].clone() for e, t in enumerate(tables)}
        opt.step()
        with torch.no_grad():
            for table, old, kept in zip(tables, frozen, rows):
                table.weight[:VOCAB] = old
                kept.append(table.weight[VOCAB:].clone())
        losses.append(loss.detach())
    out |= {f"{name}.loss": torch.stack(losses), f"{name}.t": times.int()}
    out |= {f"{name}.ids{e}": row for e, row in enumerate(lines[:len(tables)])} | {f"{name}.rows{e}": torch.stack(r) for e, r in enumerate(rows)}
    print(name, [round(float(x), 4) for x in losses])


def main():
    out = {}
    case(out, "ti", "sdxl", False)
    case(out, "ti2", "sd2", True)
    save("family_embedding.safetensors", out, oracle="sd-scripts, " + versions("diffusers", "transformers"))


if __name__ == "__main__":
    main()
