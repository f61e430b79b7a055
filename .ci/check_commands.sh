#!/usr/bin/env bash
# From an empty folder with the installed package alone: data, a config of one's own, a few steps, predictions, their page.
set -euo pipefail
export OMP_NUM_THREADS=1
perception make-data shapes --out data --num-train 8 --num-val 4
perception make-config demo/rank_detr --train data/annotations/instances_train.json data/images/train \
    --val data/annotations/instances_val.json data/images/val --out own.py
options=(train_cfg.max_iters=2 train_cfg.val_interval=2 default_hooks.checkpoint.interval=2)
perception train own.py --work-dir work --seed 0 --cfg-options "${options[@]}"
test -s work/curves.png
perception infer own.py work/iter_2.pth data/images/val --out results --cfg-options "${options[@]}"
test -s results/predictions.json
# The page shows its four images, in a browser that has nothing but the files.
test "$(ls results/page/??/*.view.jpg | wc -l)" = 4
if browser=$(command -v chromium || command -v chromium-browser || command -v google-chrome); then
    "$browser" --headless --no-sandbox --disable-gpu --proxy-server=127.0.0.1:9 --dump-dom "file://$PWD/results/index.html" \
        > page.dom 2> /dev/null
    grep -q '>4 images<' page.dom
    test "$(grep -o 'class="thumb"><img' page.dom | wc -l)" = 4
fi
perception train demo/rank_detr --work-dir named --seed 0 --cfg-options "${options[@]}" \
    {train,val,test}_dataloader.dataset.data_root=data/
perception ops
echo "the wheel's commands: data, training and predictions from an empty folder"
