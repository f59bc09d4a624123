"""
Supervised fine-tuning on right answers.

```bash
# one process, on whatever there is
python recipes/sft.py --config recipes/smollm2-135m/sft.yaml --dataset_name runs/demo

# the GPUs of one machine, or of several: another accelerate config, the same recipe
accelerate launch --config_file accelerate_configs/zero3.yaml recipes/sft.py \
    --config recipes/llama-3.1-8b-instruct/sft.yaml --dataset_name runs/bird

# from the Hub, at a tag; only say what would run
accelerate launch -m excot.recipes.sft --config recipes/qwen2.5-coder-0.5b-lora/sft.yaml \
    --dataset_name org/name --dataset_revision v1 --plan
```

Every option of TRL's own script passes through; `excot.training.arguments` lists those that are added.
"""

import sys

from excot.training.script import run


def main(script_args, training_args, model_args, dataset_args):
    from trl import SFTTrainer

    from excot.training.session import fit, prepare

    session = prepare("sft", script_args, training_args, model_args, dataset_args)
    if session is None:  # --plan
        return
    trainer = SFTTrainer(
        model=session.model,
        args=training_args,
        train_dataset=session.train,
        eval_dataset=session.held_out,
        quantization_config=session.quantization,
        peft_config=session.adapter,
    )
    fit(trainer, session)


def make_parser():
    from trl import DatasetMixtureConfig, ModelConfig, SFTConfig, TrlParser

    from excot.training.arguments import RecipeArguments

    return TrlParser((RecipeArguments, SFTConfig, ModelConfig, DatasetMixtureConfig), prog="sft.py")


if __name__ == "__main__":
    sys.exit(run("sft", make_parser, main))
