"""Where versions of earlier releases look for their model's class: their code, kept in MLflow, imports it from here."""

from registry.mlflow.pyfunc_model import AdapterModel as AdapterModel
