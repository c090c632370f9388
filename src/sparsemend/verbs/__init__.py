"""What a user asks for, one file each; the package hands these functions on."""
