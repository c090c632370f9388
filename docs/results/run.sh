#!/bin/sh
# Computes all cells behind this folder and draws its figures; about six hours on two cores.
#
#   sh docs/results/run.sh DATA STORES [OPTIONS of sparsemend sweep]
#
# DATA holds weights/ and the images, STORES gets the SQLite files. Finished cells are never
# computed again: kill it whenever you like. With --dry-run it says what is left.
set -eu
data=$1 stores=$2
shift 2
options="--heldout-size 512 --limit 2000 $*"
rules="--rule uniform --rule global --rule erk --rule lamp --rule rr"
seeds="--seed 0 --seed 1 --seed 2"
batchnorm="--repair batchnorm"
reconstruct="--repair reconstruct --calibration-size 256"

sweep() { # store, network, options
    store=$1 network=$2
    shift 2
    sparsemend sweep --model "cifar_${network#*_}" --weights "$data/weights/$network.safetensors" \
        --data "$data/${network%_*}" --store "$stores/${store}_$network.sqlite" $options "$@"
}

# The transition: coarse, then in steps of 0.01 where the curves bend.
transition() { # network, sparsities of the bend, more of them for reconstruct, and for auto
    sweep transition "$1" $rules $batchnorm $seeds --sparsity 0.50:0.95:0.05 --sparsity 0.97 $2
    grid="--sparsity 0.50 --sparsity 0.70 --sparsity 0.80 --sparsity 0.90 --sparsity 0.93 \
        --sparsity 0.95 --sparsity 0.97"
    sweep transition "$1" --rule global --rule erk --rule rr $reconstruct $grid --sparsity 0.85 $3
    sweep transition "$1" --rule auto --budget 12 $reconstruct $grid $4
}
transition cifar100_resnet20 "--sparsity 0.64:0.72:0.01" "--sparsity 0.91:0.94:0.01" ""
transition cifar10_resnet20 "--sparsity 0.81:0.87:0.01" "--sparsity 0.96 --sparsity 0.98" "--sparsity 0.98"

# Rule auto beside the plain rules.
auto() { # network, seeds and sparsities
    network=$1
    shift
    sweep auto "$network" $rules --rule uniform+ $batchnorm "$@"
    sweep auto "$network" --rule auto --budget 40 $batchnorm "$@"
    sweep auto "$network" $rules --rule uniform+ $reconstruct "$@"
    sweep auto "$network" --rule auto --budget 12 $reconstruct "$@"
}
for data_set in cifar100 cifar10; do
    auto ${data_set}_resnet20 $seeds --sparsity 0.80 --sparsity 0.90 --sparsity 0.95
    auto ${data_set}_resnet56 --seed 0 --sparsity 0.90
done

# What ERK's density in the projections is worth.
for network in cifar100_resnet20 cifar100_resnet56; do
    sparsemend ablate --force projection --from lamp --rule erk \
        --model "cifar_${network#*_}" --weights "$data/weights/$network.safetensors" \
        --data "$data/cifar100" --store "$stores/ablation_$network.sqlite" \
        $batchnorm $seeds --sparsity 0.60 --sparsity 0.70 --sparsity 0.80 --sparsity 0.90 $options
done
