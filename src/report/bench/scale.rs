//! How the cost grows.

use crate::{
    bench::scale::Axis,
    report::{escape::escape, units},
};

use super::cells::{table, thousands, words};

/// How the cost grows, an axis after the other.
pub(super) fn tables(axes: &[Axis]) -> String {
    let mut out = String::new();
    for axis in axes {
        let mut rows = vec![words(&[&axis.name, &format!("CPU, {}", axis.cost), "fuel", "memory"])];
        for point in &axis.points {
            rows.push(vec![
                if axis.in_bytes { units::size(point.x) } else { thousands(point.x) },
                units::time(point.cpu_ns),
                point.fuel.map_or("-".to_owned(), thousands),
                match point.memory_bytes {
                    0 => "-".to_owned(),
                    bytes => units::size(bytes),
                },
            ]);
        }
        out.push_str(&format!("\n{}", table(&rows)));
        let (factor, unit) = if axis.in_bytes { (1024.0, "KiB") } else { (1.0, "one more") };
        if let Some(each) = axis.cpu_ns_each {
            let each = each * factor;
            let sign = if each < 0.0 { "-" } else { "" };
            out.push_str(&format!("{unit}: {sign}{}", units::time(each.abs().round() as u64)));
            if let Some(fuel) = axis.fuel_each {
                out.push_str(&format!(", {} of fuel", thousands((fuel * factor).max(0.0) as u64)));
            }
            out.push('\n');
        }
        if let Some(remark) = &axis.remark {
            out.push_str(&format!("note: {}\n", escape(remark)));
        }
    }
    out
}
