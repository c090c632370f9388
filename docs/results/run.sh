#!/bin/sh
# Computes all cells behind this folder and draws its figures; about six hours on two cores.
#
#   sh docs/results/run.sh DATA STORES [OPTIONS of sparsemend sweep]
#
# DATA holds weights/ and the images, STORES gets one SQLite file a network. Finished cells are
# never computed again: kill it whenever you like. With --dry-run it says what is left.
set -eu
data=$1 stores=$2
shift 2
options="--heldout-size 512 --limit 2000 $*"
rules="--rule uniform --rule global --rule erk --rule lamp --rule rr"
batchnorm="--repair batchnorm"
reconstruct="--repair reconstruct --calibration-size 256"
table="--sparsity 0.80 --sparsity 0.90 --sparsity 0.95"
seeds="--seed 0 --seed 1 --seed 2"

sweep() { # data set, network, options
    set_=$1 network=$2
    shift 2
    sparsemend sweep --model "cifar_${network#*_}" --weights "$data/weights/$network.safetensors" \
        --data "$data/$set_" --store "$stores/$network.sqlite" $options "$@"
}

for set_ in cifar100 cifar10; do
    small=${set_}_resnet20 large=${set_}_resnet56
    case $set_ in
    cifar100) bend="--sparsity 0.64:0.72:0.01" more="--sparsity 0.91:0.92:0.01 --sparsity 0.94" last= ;;
    cifar10) bend="--sparsity 0.81:0.87:0.01" more="--sparsity 0.96 --sparsity 0.98" last="--sparsity 0.98" ;;
    esac
    # The transition: coarse, then fine where the curves bend.
    sweep $set_ "$small" $rules $batchnorm $seeds --sparsity 0.50:0.95:0.05 --sparsity 0.97
    sweep $set_ "$small" $rules $batchnorm $seeds $bend
    sweep $set_ "$small" --rule global --rule erk --rule rr $reconstruct --seed 0 \
        --sparsity 0.50 --sparsity 0.70 --sparsity 0.85 --sparsity 0.93 --sparsity 0.97 $more
    sweep $set_ "$small" --rule auto --budget 12 $reconstruct --seed 0 \
        --sparsity 0.50 --sparsity 0.70 --sparsity 0.93 --sparsity 0.97 $last
    # Rule auto beside all plain rules.
    sweep $set_ "$small" $rules --rule uniform+ $batchnorm $seeds $table
    sweep $set_ "$small" --rule auto --budget 30 $batchnorm $seeds $table
    sweep $set_ "$small" $rules --rule uniform+ $reconstruct $seeds $table
    sweep $set_ "$small" --rule auto --budget 12 $reconstruct $seeds $table
    sweep $set_ "$large" $rules --rule uniform+ $batchnorm --seed 0 --sparsity 0.90
    sweep $set_ "$large" --rule auto --budget 30 $batchnorm --seed 0 --sparsity 0.90
    sweep $set_ "$large" $rules --rule uniform+ $reconstruct --seed 0 --sparsity 0.90
    sweep $set_ "$large" --rule auto --budget 12 $reconstruct --seed 0 --sparsity 0.90
done

# What ERK's density in the projections is worth.
for network in cifar100_resnet20 cifar100_resnet56; do
    sparsemend ablate --force projection --from lamp --rule erk \
        --model "cifar_${network#*_}" --weights "$data/weights/$network.safetensors" \
        --data "$data/cifar100" --store "$stores/ablation_$network.sqlite" \
        $batchnorm $seeds --sparsity 0.60 --sparsity 0.70 --sparsity 0.80 --sparsity 0.90 $options
done
