//! The classes of the package's Python files that are made here.

use pyo3::exceptions::PyTypeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyTuple, PyType};

/// A class of a module of the package, looked up once.
pub(crate) struct Class {
    module: &'static str,
    name: &'static str,
    class: PyOnceLock<Py<PyType>>,
    fields: PyOnceLock<Vec<Py<PyAny>>>,
}

impl Class {
    pub(crate) const fn new(module: &'static str, name: &'static str) -> Self {
        Self { module, name, class: PyOnceLock::new(), fields: PyOnceLock::new() }
    }

    pub(crate) fn get<'py>(&self, py: Python<'py>) -> PyResult<&Bound<'py, PyType>> {
        self.class.import(py, self.module, self.name)
    }

    /// An object of the class, which is a dataclass, with these values in the order of its fields. It is not called:
    /// that would run Python, where a signal's handler may raise, and the values would be lost.
    pub(crate) fn object<'py>(
        &self,
        py: Python<'py>,
        values: impl IntoPyObject<'py, Target = PyTuple, Output = Bound<'py, PyTuple>, Error: Into<PyErr>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (class, values) = (self.get(py)?, values.into_pyobject(py).map_err(Into::into)?);
        let fields = self.fields.get_or_try_init(py, || {
            let fields = py.import("dataclasses")?.call_method1("fields", (class,))?;
            let names = fields.try_iter()?.map(|field| Ok(field?.getattr("name")?.unbind()));
            names.collect::<PyResult<Vec<_>>>()
        })?;
        if fields.len() != values.len() {
            return Err(PyTypeError::new_err(format!("{} values for {}", values.len(), self.name)));
        }
        let object = class.call_method1(intern!(py, "__new__"), (class,))?;
        let attributes = object.getattr(intern!(py, "__dict__"))?.cast_into::<PyDict>()?;
        for (field, value) in fields.iter().zip(values.iter()) {
            attributes.set_item(field, value)?;
        }
        Ok(object)
    }
}

/// Makes an object of a dataclass of one of the package's modules: `made!(py, "midspan._events", "Reset", index)`.
macro_rules! made {
    ($py:expr, $module:literal, $name:literal $(, $field:expr)* $(,)?) => {{
        static CLASS: $crate::classes::Class = $crate::classes::Class::new($module, $name);
        CLASS.object($py, ($($field,)*))?
    }};
}

pub(crate) use made;
