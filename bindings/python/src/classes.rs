//! The classes of the package's Python files that are made here.

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyType;

/// A class of a module of the package, looked up once.
pub(crate) struct Class {
    module: &'static str,
    name: &'static str,
    class: PyOnceLock<Py<PyType>>,
}

impl Class {
    pub(crate) const fn new(module: &'static str, name: &'static str) -> Self {
        Self { module, name, class: PyOnceLock::new() }
    }

    pub(crate) fn get<'py>(&self, py: Python<'py>) -> PyResult<&Bound<'py, PyType>> {
        self.class.import(py, self.module, self.name)
    }
}

/// Makes an object of a class of one of the package's modules: `made!(py, "midspan._events", "Reset", index)`.
macro_rules! made {
    ($py:expr, $module:literal, $name:literal $(, $field:expr)* $(,)?) => {{
        static CLASS: $crate::classes::Class = $crate::classes::Class::new($module, $name);
        CLASS.get($py)?.call1(($($field,)*))?
    }};
}

pub(crate) use made;
