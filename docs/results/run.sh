#!/bin/sh
# Computes all cells behind this folder, what matters most first.
#
#   sh docs/results/run.sh DATA STORES [STORE ...] [OPTIONS of sparsemend sweep]
#
# DATA holds weights/ and the images, STORES gets the SQLite files. Finished cells are never
# computed again: kill it whenever you like. Names of stores, such as band_cifar100_resnet18,
# compute these alone. With --dry-run it says how much is left of every store and of all.
set -eu
data=$1 stores=$2
shift 2
wanted=
while [ $# -gt 0 ]; do
    case $1 in
    -*) break ;;
    *) wanted="$wanted $1 " && shift ;;
    esac
done
options=$*
first="cifar100_resnet18 cifar100_vgg16_bn"
others="cifar100_resnet34 cifar10_resnet18 cifar10_vgg16_bn cifar10_resnet34"
rules="--rule erk --rule lamp --rule rr --rule global --rule rr-density --rule uniform"
ours="--rule branches --rule sensitivity"
fine="--sparsity 0.94:0.955:0.005"
around="--sparsity 0.90:0.935:0.005 --sparsity 0.96:0.97:0.005"
ends="--sparsity 0.80 --sparsity 0.85 --sparsity 0.98"
coarse="--sparsity 0.90 --sparsity 0.94 --sparsity 0.95 --sparsity 0.96 --sparsity 0.97"
high="--sparsity 0.90 --sparsity 0.95 --sparsity 0.97 --sparsity 0.98:0.995:0.005"

run() { # command, stage, network, options
    command=$1 network=$3 store=$2_$3
    shift 3
    case ${network#*_} in vgg*) model=${network#*_} ;; *) model=cifar_${network#*_} ;; esac
    case "$wanted" in "" | *" $store "*) ;; *) return 0 ;; esac
    set -- "$command" --model "$model" --data "$data/${network%%_*}" \
        --weights "$data/weights/$network.safetensors" --store "$stores/$store.sqlite" \
        --limit 2000 "$@" $options
    case " $options " in
    *" --dry-run "*) sparsemend "$@" | sed -n "1s/^/$store: /p" ;;
    *) sparsemend "$@" || [ $? -eq 1 ] ;; # 1: some cells failed, those that follow need not
    esac
}

# The networks of full width.
light() { run sweep "$@" --calibration-size 512 --heldout-size 256; }
refitted() { # networks, rules
    for network in $1; do
        run sweep reconstruct "$network" $2 $high --repair reconstruct --calibration-size 1024 \
            --heldout-size 256
    done
}

full_width() {
    for network in $first; do light band "$network" $rules --repair batchnorm $fine; done
    for network in $first; do light band "$network" $rules --repair batchnorm $around; done
    for network in $others; do light band "$network" $rules --repair batchnorm $fine $around; done
    for network in $first $others; do
        light band "$network" $ours --repair batchnorm $fine $around
    done
    for network in $first $others; do
        light ends "$network" $rules $ours --repair batchnorm $ends
    done
    for network in $first $others; do
        light repairs "$network" $rules $coarse --repair batchnorm-ema --repair variance \
            --repair variance+batchnorm-ema --repair shrinkage+batchnorm-ema
    done
    for network in cifar100_resnet18 cifar100_resnet34 cifar10_resnet18 cifar10_resnet34; do
        light forced "$network" --repair batchnorm $coarse --rule "erk[projection=lamp]" \
            --rule "erk[projection=rr]" --rule "erk[projection=global]" \
            --rule "rr[projection=erk]"
    done
    refitted "$first" "--rule erk --rule lamp --rule global"
    refitted "$others" "--rule erk --rule lamp --rule global"
    refitted "$first $others" "--rule rr --rule auto --budget 12"
    for network in $first $others; do
        light auto "$network" --rule auto --budget 40 --repair batchnorm $coarse
    done
    for network in $first $others; do
        light band "$network" $rules $ours --repair batchnorm $fine $around \
            --seed 1 --seed 2
    done
}

# The narrow networks, as a contrast.
plain="--rule uniform --rule global --rule erk --rule lamp --rule rr"
seeds="--seed 0 --seed 1 --seed 2"
batchnorm="--repair batchnorm"
reconstruct="--repair reconstruct --calibration-size 256"
sweep() { run sweep "$@" --heldout-size 512; }

# The transition: coarse, then in steps of 0.01 where the curves bend.
transition() { # network, sparsities of the bend, more of them for reconstruct, and for auto
    sweep transition "$1" $plain $batchnorm $seeds --sparsity 0.50:0.95:0.05 --sparsity 0.97 $2
    grid="--sparsity 0.50 --sparsity 0.70 --sparsity 0.80 --sparsity 0.90 --sparsity 0.93 \
        --sparsity 0.95 --sparsity 0.97"
    sweep transition "$1" --rule global --rule erk --rule rr $reconstruct $grid --sparsity 0.85 $3
    sweep transition "$1" --rule auto --budget 12 $reconstruct $grid $4
}

# Rule auto beside the plain rules.
auto() { # network, seeds and sparsities
    network=$1
    shift
    sweep auto "$network" $plain --rule uniform+ $batchnorm "$@"
    sweep auto "$network" --rule auto --budget 40 $batchnorm "$@"
    sweep auto "$network" $plain --rule uniform+ $reconstruct "$@"
    sweep auto "$network" --rule auto --budget 12 $reconstruct "$@"
}

narrow() {
    transition cifar100_resnet20 "--sparsity 0.64:0.72:0.01" "--sparsity 0.91:0.94:0.01" ""
    transition cifar10_resnet20 "--sparsity 0.81:0.87:0.01" "--sparsity 0.96 --sparsity 0.98" \
        "--sparsity 0.98"
    for data_set in cifar100 cifar10; do
        auto ${data_set}_resnet20 $seeds --sparsity 0.80 --sparsity 0.90 --sparsity 0.95
        auto ${data_set}_resnet56 --seed 0 --sparsity 0.90
    done
    # What ERK's density in the projections is worth.
    for network in cifar100_resnet20 cifar100_resnet56; do
        run ablate ablation "$network" --force projection --from lamp --rule erk $batchnorm \
            $seeds --sparsity 0.60 --sparsity 0.70 --sparsity 0.80 --sparsity 0.90 \
            --heldout-size 512
    done
}

case " $options " in
*" --dry-run "*)
    { full_width; narrow; } |
        awk '{ print; done += $2; left += $6 }
            END { print "all: " done + 0 " cells are done, " left + 0 " to do" }'
    ;;
*)
    full_width
    narrow
    ;;
esac
