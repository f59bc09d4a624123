"""
Direct preference optimization on pairs of a right and a wrong answer.

```bash
# one process, on whatever there is
python recipes/dpo.py --config recipes/smollm2-135m/dpo_offpolicy.yaml --dataset_name runs/demo

# the GPUs of one machine, or of several: another accelerate config, the same recipe
accelerate launch --config_file accelerate_configs/zero3.yaml recipes/dpo.py \
    --config recipes/llama-3.1-8b-instruct/dpo_offpolicy.yaml --dataset_name runs/bird

# with LoRA on one small GPU, from the Hub, at a tag
accelerate launch --config_file accelerate_configs/single_gpu.yaml recipes/dpo.py \
    --config recipes/qwen2.5-coder-0.5b-lora/dpo_offpolicy.yaml --dataset_name org/name --dataset_revision v1
```

Every option of TRL's own script passes through; `excot.training.arguments` lists those that are added.
"""

import sys

from excot.training.script import run


def main(script_args, training_args, model_args, dataset_args):
    from trl import DPOTrainer

    from excot.training.session import fit, prepare

    session = prepare("dpo", script_args, training_args, model_args, dataset_args)
    if session is None:  # --plan
        return
    trainer = DPOTrainer(
        model=session.model,
        args=training_args,
        train_dataset=session.train,
        eval_dataset=session.held_out,
        quantization_config=session.quantization,
        peft_config=session.adapter,
    )
    fit(trainer, session)


def make_parser():
    from trl import DatasetMixtureConfig, DPOConfig, ModelConfig, TrlParser

    from excot.training.arguments import RecipeArguments

    return TrlParser((RecipeArguments, DPOConfig, ModelConfig, DatasetMixtureConfig), prog="dpo.py")


if __name__ == "__main__":
    sys.exit(run("dpo", make_parser, main))
