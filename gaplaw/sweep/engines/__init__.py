"""Where does a group run? This machine, a pod, Ray, Slurm; and manifests for clusters."""
