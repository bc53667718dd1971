# shellcheck shell=bash
# Sourced by .ci/torches, .ci/matrix and .ci/first-steps: virtual environments with a PyTorch of a given version.

# Runs a command where the environments are; .ci/matrix has another, for Pythons of a Debian in a folder.
inside() {
    "$@"
}

# install_torch VENV VERSION|newest
install_torch() {
    inside "$1/bin/python" -m pip install --quiet --upgrade "pip>=24" &&
        inside "$1/bin/python" -m pip install --quiet --upgrade "torch$([ "$2" = newest ] || echo "==$2")"
}

# The PyTorch of an environment, as a requirement that keeps it.
#   torch_of VENV
torch_of() {
    inside "$1/bin/python" -W ignore -c 'import torch; print("torch==" + torch.__version__.split("+")[0])'
}

# A CPU build of PyTorch may have no torchvision that imports beside it: then the suite runs without.
#   drop_broken_torchvision VENV
drop_broken_torchvision() {
    inside "$1/bin/python" -W ignore -c "import torchvision" 2> /dev/null ||
        inside "$1/bin/python" -m pip uninstall --quiet --yes torchvision
}
