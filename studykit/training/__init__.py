"""Bases, adapters and fusions: made, trained, loaded, asked for text. (notebooks 00, 02, 03)

May import `data`, `tuners`, `runs` and `study`.

To read, in this order: `base` (a frozen base is loaded), `pretraining` (a small one is trained), `adapters` and
`fusions` (new ones, and those of finished runs), `placebos` (members whose weights are drawn anew), `temperature` (of a
fusion's scores), `phases` (the phases of a fusion), `cross_fit` (a fusion reads rows that its target's member has not
seen), `cross_validation` (folds choose the steps), `train`, `trainer` and `optimizers` (one training), `result` (what
it leaves behind), `stability` (spikes and divergence), `probes` (of a fusion's gradient), `batches` (rows as tensors,
losses), `generate` and `decoding` (completions), `peft_baselines` (PEFT's compositions of LoRAs), `memory`, `estimate`
and `fit` (whether a study fits a GPU), `downloads` (what a study reads of the hub), `rounding` (weights in bf16),
`distributed` (several GPUs).
"""
