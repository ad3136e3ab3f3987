"""Training windows, choice by stability, and bundles."""
