# Names and the certificate.

data "aws_route53_zone" "main" {
  count = var.zone_name != null ? 1 : 0

  name         = var.zone_name
  private_zone = false
}

data "aws_acm_certificate" "existing" {
  count = var.certificate_domain != null ? 1 : 0

  domain      = var.certificate_domain
  statuses    = ["ISSUED"]
  most_recent = true
}

resource "aws_acm_certificate" "main" {
  count = var.certificate_domain == null ? 1 : 0

  domain_name               = var.domain_name
  subject_alternative_names = var.alternative_names
  validation_method         = "DNS"

  tags = { Name = local.name }

  lifecycle {
    create_before_destroy = true # the listener holds the old one until it has the new one
  }
}

resource "aws_route53_record" "validation" {
  # By names that are known before the certificate is.
  for_each = var.certificate_domain == null ? toset(concat([var.domain_name], var.alternative_names)) : toset([])

  zone_id         = data.aws_route53_zone.main[0].zone_id
  name            = local.validation[each.key].resource_record_name
  type            = local.validation[each.key].resource_record_type
  records         = [local.validation[each.key].resource_record_value]
  ttl             = 60
  allow_overwrite = true # *.example.com and example.com are proven by one record
}

locals {
  validation = var.certificate_domain == null ? {
    for option in aws_acm_certificate.main[0].domain_validation_options : option.domain_name => option
  } : {}

  # The validation's ARN rather than the certificate's: AWS refuses a listener with a certificate that is pending.
  certificate_arn = var.certificate_domain == null ? aws_acm_certificate_validation.main[0].certificate_arn : data.aws_acm_certificate.existing[0].arn
}

resource "aws_acm_certificate_validation" "main" {
  count = var.certificate_domain == null ? 1 : 0

  certificate_arn         = aws_acm_certificate.main[0].arn
  validation_record_fqdns = [for record in aws_route53_record.validation : record.fqdn]
}

resource "aws_route53_record" "app" {
  count = var.zone_name != null ? 1 : 0

  zone_id = data.aws_route53_zone.main[0].zone_id
  name    = var.domain_name
  type    = "A"

  alias {
    name                   = aws_lb.main.dns_name
    zone_id                = aws_lb.main.zone_id
    evaluate_target_health = true
  }
}
