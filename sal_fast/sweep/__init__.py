"""Many runs: a grid of experiments on Ray, on this machine or a cluster; what they share is trained once."""
