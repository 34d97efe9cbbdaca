"""Speed beside the peers and the limits of the machine, all measured in one run (`noisepilot bench`)."""
