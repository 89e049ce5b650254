"""blackbox-distill: one linear flow, one door to any language model.

stage 1  generate   data/*.jsonl -> Seed -> recipe -> Request -> MODEL (teacher)
                    -> Generation -> ledger
         curate     ledger -> filters -> Example -> dataset (dropped rows keep their reason)
stage 2  train      dataset -> TRL -> student
stage 3  evaluate   items -> Request -> MODEL (teacher | before | after) -> Generation -> answers
         score      answers -> scores
         report     scores -> a page

__main__.py        the command line                 flow.py      the steps in order; one at a time
config.py          YAML -> typed config             config_file.py   the file, its lines, --set
records.py         every record type                prompts.py   prompt files
ledger.py          the store of what was paid for   ledger_index.py  where each id lies in it
steps.py           run a step once; drift           models/      the door: open_model, generate
constraints/       verifiable instructions          stopping.py, progress.py, errors.py
stage1_generate/   stage2_train/   stage3_evaluate/   launch/   commands/
"""
