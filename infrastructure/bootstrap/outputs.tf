output "bucket" {
  description = "Name of the bucket of states, for environments/<name>/backend.hcl."
  value       = module.state.id
}

output "region" {
  description = "Its region, for the same file."
  value       = var.aws_region
}

output "drift_role_arn" {
  description = "Role of the drift workflow, for the repository's variable AWS_DRIFT_ROLE. Null without drift_repository."
  value       = one(aws_iam_role.drift[*].arn)
}
