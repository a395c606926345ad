"""The command `sn2fpn`: one name for the programs of this package, and commands about the package itself."""
