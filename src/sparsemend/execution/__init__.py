"""How models are run: batches of any form, evaluation mode, many passes in lockstep."""
