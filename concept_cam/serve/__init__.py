"""The app: type a trait, see it, correct it, keep it. :mod:`desk` answers, :mod:`app` speaks HTTP, ``page/`` is what people see."""
