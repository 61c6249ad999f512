# What each does is in tests/check, demo/run, release/run, fuzz/run and CONTRIBUTING.md.
.PHONY: help setup fmt lint test test-long soak fuzz bench demo dist

help:
	@echo 'make demo       bring up a Docker engine, and run the main job three times with a cache in a directory'
	@echo 'make test       everything CI runs: lint, the real engines and registries, all tests'
	@echo 'make test-long  the same with the long tests'
	@echo 'make soak       200 builds on one cache, with random edits, faults, kills and prunes'
	@echo 'make fuzz       hostile input for each of the readers, a minute each (FUZZ_ARGS="archive layer 600" for two, longer)'
	@echo 'make bench      hakobi beside the ways it replaces, as a table'
	@echo 'make dist       release archives with static binaries, in target/dist'
	@echo 'make lint       format, clippy, rustdoc, licences and advisories'
	@echo 'make fmt        format the code'
	@echo 'make setup      install what the above need and lack'

setup:
	@tests/check setup

fmt:
	@cargo fmt

lint:
	@tests/check lint

test:
	@tests/check test

test-long:
	@tests/check test-long

soak:
	@tests/check soak

fuzz:
	@fuzz/run $(FUZZ_ARGS)

bench:
	@cargo build --locked --release --bin hakobi --example s3-server && \
		HAKOBI="$${HAKOBI:-$${CARGO_TARGET_DIR:-target}/release/hakobi}" \
		S3_SERVER="$${S3_SERVER:-$${CARGO_TARGET_DIR:-target}/release/examples/s3-server}" benches/peers/run $(BENCH_ARGS)

demo:
	@demo/run

dist:
	@release/run
