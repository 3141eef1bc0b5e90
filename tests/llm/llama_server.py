#!/usr/bin/env python3
"""llama-server, as the tests need it: llama.cpp's own server out of the package `xllamacpp`, with
those of its options that the tests use.
"""
import argparse
import os
import signal
import sys

import xllamacpp


def main():
    words = argparse.ArgumentParser(prog="llama-server")
    words.add_argument("-m", "--model", required=True)
    words.add_argument("-a", "--alias")
    words.add_argument("--host", default="127.0.0.1")
    words.add_argument("--port", type=int, default=8080)
    words.add_argument("-c", "--ctx-size", type=int, default=512)
    words.add_argument("-t", "--threads", type=int, default=1)
    words.add_argument("-np", "--parallel", type=int, default=1)
    words.add_argument("-ngl", "--gpu-layers", type=int, default=-1)
    words.add_argument("--api-key")
    words.add_argument("--embeddings", action="store_true")
    args = words.parse_args()
    params = xllamacpp.CommonParams()
    params.model.path = args.model
    params.hostnames = [args.host]
    params.port = args.port
    params.n_ctx = args.ctx_size
    params.n_parallel = args.parallel
    params.cpuparams.n_threads = args.threads
    params.cpuparams_batch.n_threads = args.threads
    params.n_threads_http = 4
    params.embedding = args.embeddings
    if args.embeddings:
        # The model does not say how its embeddings are put together, as embedding models do.
        params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    params.warmup = False
    if args.api_key:
        params.api_keys = [args.api_key]
    if args.alias:
        params.model_alias = {args.alias}
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    try:
        server = xllamacpp.Server(params)
    except Exception as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        os._exit(1)
    print(f"server is listening on {server.listening_address}", file=sys.stderr, flush=True)
    signal.pause()


main()
