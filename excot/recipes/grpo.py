"""
GRPO with the reward of executing each answer: 1 where its result is the gold's, 0.1 where it only executes.

```bash
# one process, on whatever there is; questions and databases from a run folder
python recipes/grpo.py --config recipes/smollm2-135m/grpo.yaml --dataset_name runs/demo

# GPUs, with vLLM answering on them between the steps
accelerate launch --config_file accelerate_configs/zero3.yaml recipes/grpo.py \
    --config recipes/llama-3.1-8b-instruct/grpo.yaml --dataset_name runs/bird --use_vllm --vllm_mode colocate

# from the Hub: the databases must be said
accelerate launch -m excot.recipes.grpo --config recipes/qwen2.5-coder-7b-lora/grpo.yaml \
    --dataset_name org/name --dataset_revision v1 --databases bird/train_databases
```

Every option of TRL's own script passes through, `reward_funcs` with it; `excot.training.arguments` lists those that
are added.
"""

import sys

from excot.training.script import run


def main(script_args, training_args, model_args, dataset_args):
    from trl import GRPOTrainer

    from excot.training.rewards import open_rewards
    from excot.training.session import fit, prepare

    session = prepare("grpo", script_args, training_args, model_args, dataset_args)
    if session is None:  # --plan
        return
    with open_rewards(script_args, session.data) as rewards:
        trainer = GRPOTrainer(
            model=session.model,
            reward_funcs=rewards,
            args=training_args,
            train_dataset=session.train,
            eval_dataset=session.held_out,
            quantization_config=session.quantization,
            peft_config=session.adapter,
        )
        fit(trainer, session)


def make_parser():
    from trl import DatasetMixtureConfig, GRPOConfig, ModelConfig, TrlParser

    from excot.training.arguments import GrpoArguments

    return TrlParser((GrpoArguments, GRPOConfig, ModelConfig, DatasetMixtureConfig), prog="grpo.py")


if __name__ == "__main__":
    sys.exit(run("grpo", make_parser, main))
