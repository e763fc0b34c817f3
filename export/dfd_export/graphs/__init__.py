"""Keras models as ONNX graphs: conversion, layers, and the passes that make them lean."""
