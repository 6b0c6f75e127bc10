"""Reads a cloud-init file, holds it against cloud-init's schema, and prints it as JSON.

    cloud_config.py SCHEMA FILE
"""

import json
import sys

import jsonschema_rs
import yaml

schema, name = sys.argv[1:]
with open(name) as file:
    first = file.readline().strip()
    file.seek(0)
    content = yaml.safe_load(file)
if first != "#cloud-config":
    sys.exit(f"{name} does not begin with #cloud-config, by which cloud-init knows it")
with open(schema) as file:
    validator = jsonschema_rs.Draft4Validator(json.load(file))
problems = [f"{'/'.join(map(str, error.instance_path))}: {error.message}" for error in validator.iter_errors(content)]
if problems:
    sys.exit("\n".join(problems))
json.dump(content, sys.stdout)
