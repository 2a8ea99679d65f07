# Entries of Secrets Manager, without values: whoever can read the state must not be able to read a secret. The runbook
# fills them, rotations change them.

resource "aws_secretsmanager_secret" "main" {
  for_each = var.secrets

  name                    = "${var.project}/${var.environment}/${each.key}"
  description             = each.value.description
  kms_key_id              = aws_kms_key.data.arn
  recovery_window_in_days = local.production ? 30 : 7
}

resource "aws_secretsmanager_secret_rotation" "main" {
  for_each = { for name, secret in var.secrets : name => secret if secret.rotation_function != null }

  secret_id           = aws_secretsmanager_secret.main[each.key].id
  rotation_lambda_arn = each.value.rotation_function
  # Not with the apply: the first rotation needs a value to begin with.
  rotate_immediately = false

  rotation_rules {
    automatically_after_days = each.value.rotation_days
  }

  depends_on = [aws_lambda_permission.rotation]
}

resource "aws_lambda_permission" "rotation" {
  for_each = { for name, secret in var.secrets : name => secret if secret.rotation_function != null }

  statement_id   = "rotate-${local.name}-${each.key}"
  action         = "lambda:InvokeFunction"
  function_name  = each.value.rotation_function
  principal      = "secretsmanager.amazonaws.com"
  source_account = local.account_id
  source_arn     = aws_secretsmanager_secret.main[each.key].arn
}
