#!/usr/bin/env bash
# What tests/integration/serving/test_page.py needs beside `pip install '.[dev,serve]'`: Debian's Chromium, and Playwright.
set -euo pipefail
apt-get update -qq
apt-get install -qq -y --no-install-recommends chromium fonts-dejavu-core
"${PYTHON:-python3}" -m pip install --quiet 'playwright>=1.50,<2'
