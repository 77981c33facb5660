"""Bases, adapters and fusions: made, trained, loaded, asked for text. (notebooks 00, 02, 03)

May import `data`, `tuners`, `runs` and `study`.

To read, in this order: `base` (a frozen base is loaded), `pretraining` (a small one is made), `adapters` and `fusions`
(new ones, and those of finished runs), `phases` (the phases of a fusion), `train` and `trainer` (one training), `result`
(what it leaves behind), `batches` (rows as tensors, losses), `generate` and `decoding` (completions), `peft_baselines` (PEFT's compositions of LoRAs),
`memory` and `estimate` (whether a study fits), `distributed` (several GPUs).
"""
