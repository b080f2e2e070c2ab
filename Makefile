# make demo    play a bag into the node and leave the result in out/   (BAG=… OUT=…)
# make test    every test, under real rclpy                            (PYTEST='-k words')
# make soak    an hour of the real node with random faults; prints a table (MINUTES=60)
# make lint    ruff, mypy and bandit;  make format mends what ruff can
# make audit   known weaknesses of what is in requirements.lock (asks PyPI about each)
#
# Each does the set-up that it needs: a virtual environment in .venv with pinned packages, ROS 2
# from wheels included. Needs Python 3.10 or newer with its headers, make and a C++ compiler.
# PyPI's torch brings CUDA (3 GB). Without such a GPU, name PyTorch's CPU index once:
#   make setup TORCH='torch==2.13.0 --index-url …'

PYTHON ?= python3
TORCH ?= torch==2.13.0
BAG ?=
OUT ?= out
PYTEST ?=
MINUTES ?= 60

VENV := .venv
BIN := $(VENV)/bin
# Python compiles the modules that it uses; compiling all of them is half of the time.
PIP := $(BIN)/python -m pip --disable-pip-version-check install -qq --no-compile

# Modules are compiled when first used, and kept: else each of a hundred processes compiles them.
unexport PYTHONDONTWRITEBYTECODE
# A sourced ROS installation must not mix with the wheels.
unexport PYTHONPATH PYTHONHOME LD_LIBRARY_PATH AMENT_PREFIX_PATH CMAKE_PREFIX_PATH
unexport COLCON_PREFIX_PATH _ROS_WHEELS_BOOTSTRAP_COMPLETE ROS_DISTRO RMW_IMPLEMENTATION
# Nor its middleware's settings, such as a discovery server that is not running.
unexport ROS_DISCOVERY_SERVER FASTRTPS_DEFAULT_PROFILES_FILE FASTDDS_DEFAULT_PROFILES_FILE
unexport CYCLONEDDS_URI

.PHONY: setup messages demo test soak lint audit format clean
.DELETE_ON_ERROR:

setup: $(VENV)/.installed

messages: $(VENV)/.messages

demo: setup
	@$(MAKE) --no-print-directory --silent messages \
	  || echo 'warning: llm_mde_msgs was not built; the node leaves out stats and load_adapter' >&2
	$(BIN)/llm-mde demo $(if $(BAG),--bag '$(BAG)') --out '$(OUT)'

test: setup messages
	$(BIN)/python -m pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder $(PYTEST)

soak: setup messages
	PYTHONPATH=test $(BIN)/python -m soak --minutes '$(MINUTES)' --out '$(OUT)/soak'

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/bandit -q -c pyproject.toml -r llm_mde_core llm_mde_ros training scripts launch setup.py

# Strict: a package that the service does not know is not a clean one.
audit: $(VENV)/.torch
	$(PYTHON) -m venv $(VENV)/audit
	$(VENV)/audit/bin/python -m pip --disable-pip-version-check install -qq pip-audit==2.10.1
	$(VENV)/audit/bin/pip-audit --strict --disable-pip --require-hashes -r requirements.lock

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf build install log out *.egg-info training/*.egg-info training/build
	rm -rf .pytest_cache .ruff_cache .mypy_cache
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

# The stamps: each step runs again when what it was made from changes.
$(VENV)/.torch:
	@echo 'Creating $(VENV) and installing PyTorch (a large download) …'
	$(PYTHON) -m venv $(VENV)
	$(PIP) pip==26.3
	$(PIP) $(TORCH)
	@touch $@

$(VENV)/.requirements: requirements.txt $(VENV)/.torch
	@echo 'Installing the pinned packages and ROS 2 …'
	$(PIP) -r requirements.txt
	@touch $@

$(VENV)/.installed: $(VENV)/.requirements setup.py setup.cfg package.xml training/pyproject.toml
	$(PIP) --no-build-isolation --no-deps -e . -e training
	@touch $@

$(VENV)/.messages: $(VENV)/.requirements scripts/build_messages.py \
  $(wildcard msg/package.xml msg/CMakeLists.txt msg/msg/* msg/srv/*)
	@echo 'Building llm_mde_msgs …'
	$(BIN)/python scripts/build_messages.py
	@touch $@
