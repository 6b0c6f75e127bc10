//! Functions and their replicas: deploy, update, scale, delete, resolve, restart.
