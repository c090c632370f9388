"""The claims of Relative Repairability on the networks of the paper, from the stores of sweeps."""
